/** The turns of a conversation, and the commands that change them. Knows messages; knows nothing of servers or keys. */

import { UsageError } from "../../errors.ts";
import type { Terminal } from "../../terminal.ts";
import type { ChatMessage } from "./chat_client.ts";
import type { ChatStats } from "./shown_answer.ts";

const HELP = `/system TEXT  sets the system message; without TEXT: shows it
/load FILE    loads a text to talk about
/stats        shows tokens and speed of the answers so far
/clear        starts over; keeps the system message
/exit         leaves, as Ctrl-D does
"""           begins and ends a message of several lines; so does \\ at the end of a line, for one more
//…           sends a message that begins with a slash`;

/** Whether the conversation goes on, and with which question, if any. */
export type Turn =
  | { readonly kind: "question"; readonly text: string }
  | { readonly kind: "done" }
  | { readonly kind: "exit" };

/** Everything said so far. */
export class Conversation {
  readonly #terminal: Terminal;
  readonly #stats: ChatStats;
  #system: string | undefined;
  #turns: ChatMessage[] = [];

  constructor(terminal: Terminal, stats: ChatStats, system: string | undefined) {
    this.#terminal = terminal;
    this.#stats = stats;
    this.#system = system;
  }

  get messages(): readonly ChatMessage[] {
    return this.#system === undefined ? this.#turns : [{ role: "system", content: this.#system }, ...this.#turns];
  }

  say(content: string): void {
    this.#turns.push({ role: "user", content });
  }

  /** An answer that failed takes its question along, so that asking again does not ask twice. */
  answered(content: string | undefined): void {
    if (content === undefined) this.#turns.pop();
    else this.#turns.push({ role: "assistant", content });
  }

  /**
   * A text to talk about becomes a turn of its own.
   * @throws {UsageError} when it cannot be read
   */
  async load(path: string, flag: string): Promise<number> {
    try {
      const text = await Deno.readTextFile(path);
      this.say(text);
      return text.length;
    } catch (error) {
      if (error instanceof Error) throw new UsageError(`Cannot read ${flag}: ${error.message}`);
      throw error;
    }
  }

  /** Does what a message says that is a command; others are questions. */
  async take(message: string): Promise<Turn> {
    if (message.startsWith("//")) return { kind: "question", text: message.slice(1) };
    const [, name, argument = ""] = /^\/(\w*)\s*(.*)$/s.exec(message) ?? [];
    if (name === undefined) return { kind: "question", text: message };
    if (name === "exit" || name === "quit" || name === "bye") return { kind: "exit" };
    await this.#command(name, argument.trim());
    return { kind: "done" };
  }

  async #command(name: string, argument: string): Promise<void> {
    const terminal = this.#terminal;
    if (name === "stats") return terminal.line(this.#stats.describe());
    if (name === "help") return terminal.line(HELP);
    if (name === "system") {
      if (argument !== "") this.#system = argument;
      return terminal.line(this.#system === undefined ? "There is no system message" : `System: ${this.#system}`);
    }
    if (name === "clear") {
      this.#turns = [];
      return terminal.line("The conversation begins again");
    }
    if (name === "load") return await this.#load(argument);
    terminal.error(`Cannot do /${name}: /help lists the commands`);
  }

  async #load(path: string): Promise<void> {
    if (path === "") return this.#terminal.error("Cannot load a text: /load needs a file, none given");
    try {
      this.#terminal.line(`${path}: ${await this.load(path, "the file")} characters`);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      this.#terminal.error(error.message);
    }
  }
}
