/**
 * `chat`: a conversation in the terminal with a running server.
 * Knows signals and flags; `chat_client.ts` asks the server, `chat_input.ts` gets the lines.
 */

import { SERVICE_FLAGS } from "../../config.ts";
import type { Command, FlagValues } from "../../command.ts";
import type { Terminal } from "../../terminal.ts";
import { ChatClient, ChatError, type ChatQuestion } from "./chat_client.ts";
import { type ChatInput, EditedInput, StreamedInput } from "./chat_input.ts";
import { Conversation } from "./conversation.ts";
import { MessageLines } from "./message_lines.ts";
import { ChatStats, ShownAnswer } from "./shown_answer.ts";

const flags = {
  url: {
    kind: "text",
    value: "URL",
    default: "http://127.0.0.1:8000/v1",
    help: "address of the server, with or without /v1",
  },
  apiKey: {
    kind: "text",
    value: "KEY",
    help: "key to send; set TIDEPOOL_CHAT_API_KEY instead to keep it out of process lists",
  },
  system: { kind: "text", value: "TEXT", help: "the system message" },
  file: { kind: "text", value: "FILE", help: "a text to talk about; becomes the first message" },
  attention: {
    kind: "choice",
    choices: SERVICE_FLAGS.attention.choices,
    help: "attention of answers (default: the server's)",
  },
  budget: SERVICE_FLAGS.budget,
  coverage: SERVICE_FLAGS.coverage,
  correction: {
    kind: "choice",
    choices: SERVICE_FLAGS.correction.choices,
    help: "what happens to sparsely decoded rows (default: the server's choice)",
  },
  maxTokens: {
    kind: "integer",
    min: 1,
    max: 2 ** 31 - 1,
    help: "longest answer in tokens (default: what the context leaves)",
  },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Talk to a running server; Ctrl-C ends an answer, then the conversation; /help lists commands",
  flags,
  async run(values: Values, terminal: Terminal): Promise<number> {
    const stats = new ChatStats();
    const conversation = new Conversation(terminal, stats, values.system);
    if (values.file !== undefined) await conversation.load(values.file, "--file");
    const interrupt = new Interrupt();
    try {
      await new Chat(values, { terminal, interrupt, conversation, stats }).hold();
      return 0;
    } finally {
      interrupt.close();
    }
  },
};

interface ChatParts {
  readonly terminal: Terminal;
  readonly interrupt: Interrupt;
  readonly conversation: Conversation;
  readonly stats: ChatStats;
}

class Chat {
  readonly #values: Values;
  readonly #parts: ChatParts;
  readonly #client: ChatClient;
  /** Whether a person types and reads. */
  readonly #isInteractive: boolean;
  readonly #isStyled: boolean;

  constructor(values: Values, parts: ChatParts) {
    this.#values = values;
    this.#parts = parts;
    this.#client = new ChatClient(values.url, values.apiKey);
    this.#isInteractive = parts.terminal.interactive && Deno.stdin.isTerminal();
    this.#isStyled = this.#isInteractive && Deno.env.get("NO_COLOR") === undefined;
  }

  /** Until the input ends or Ctrl-C comes between questions. */
  async hold(): Promise<void> {
    const { terminal, interrupt } = this.#parts;
    const model = await this.#client.model(interrupt.whole);
    if (this.#isInteractive) terminal.line(`${model} at ${this.#client.url}. Ctrl-D ends, /help lists commands.`);
    const input = this.#isInteractive
      ? new EditedInput(() => interrupt.now())
      : new StreamedInput(Deno.stdin.readable, interrupt.whole);
    try {
      await this.#converse(model, input);
    } finally {
      input.close();
    }
    if (this.#isInteractive) terminal.line("");
  }

  async #converse(model: string, input: ChatInput): Promise<void> {
    const { conversation, interrupt } = this.#parts;
    const over = new Promise<undefined>((resolve) =>
      interrupt.whole.addEventListener("abort", () => resolve(undefined), { once: true })
    );
    for (;;) {
      const message = await Promise.race([this.#message(input), over]);
      if (message === undefined) return;
      if (message.trim() === "") continue;
      const turn = await conversation.take(message);
      if (turn.kind === "exit") return;
      if (turn.kind === "done") continue;
      conversation.say(turn.text);
      conversation.answered(await this.#answer(model));
    }
  }

  /** The next message, of one line or several; undefined: there is none. */
  async #message(input: ChatInput): Promise<string | undefined> {
    const lines = new MessageLines();
    for (;;) {
      const line = await input.next(lines.isOpen ? ". " : "> ");
      if (line === undefined) return lines.end();
      try {
        const message = lines.push(line);
        if (message !== undefined) return message;
      } catch (error) {
        if (!(error instanceof ChatError)) throw error;
        this.#parts.terminal.error(error.message);
      }
    }
  }

  /** Streams the answer; undefined when there was none. One that Ctrl-C cut short counts. */
  async #answer(model: string): Promise<string | undefined> {
    const { terminal, interrupt, stats } = this.#parts;
    const shown = new ShownAnswer(terminal, stats, this.#isStyled);
    await interrupt.during(async (signal) => {
      try {
        for await (const event of this.#client.ask(this.#question(model), signal)) shown.show(event);
        shown.complete();
      } catch (error) {
        shown.cut();
        if (signal.aborted) terminal.line("\n[stopped]");
        else if (error instanceof ChatError) terminal.error(error.message);
        else throw error;
      }
    });
    return shown.text === "" ? undefined : shown.text;
  }

  #question(model: string): ChatQuestion {
    const { attention: mode, budget, coverage, correction, maxTokens } = this.#values;
    return {
      model,
      messages: this.#parts.conversation.messages,
      attention: {
        ...(mode === undefined ? {} : { mode }),
        ...(budget === undefined ? {} : { budget }),
        ...(coverage === undefined ? {} : { coverage }),
        ...(correction === undefined ? {} : { correction }),
      },
      ...(maxTokens === undefined ? {} : { maxTokens }),
    };
  }
}

/** Ctrl-C ends the answer that is being given, else the conversation. */
class Interrupt {
  readonly #whole = new AbortController();
  #answer: AbortController | undefined;
  readonly #onSignal = () => this.now();

  constructor() {
    Deno.addSignalListener("SIGINT", this.#onSignal);
  }

  /** Ctrl-C came, as a signal or, from a terminal whose lines are edited, as a key. */
  now(): void {
    (this.#answer ?? this.#whole).abort();
  }

  /** Aborted when the conversation is to end. */
  get whole(): AbortSignal {
    return this.#whole.signal;
  }

  /** While `answer` runs, Ctrl-C aborts its signal only. */
  async during(answer: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.#answer = controller;
    try {
      await answer(controller.signal);
    } finally {
      this.#answer = undefined;
    }
  }

  close(): void {
    Deno.removeSignalListener("SIGINT", this.#onSignal);
  }
}
