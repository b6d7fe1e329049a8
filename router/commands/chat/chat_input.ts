/** Where the messages of a conversation come from: an edited line on a terminal, or a stream of lines. */

import process from "node:process";
import { createInterface, type Interface } from "node:readline";

import { KeyGate, LINE_BREAK } from "./key_gate.ts";

/** Lines, one after the other; what is typed between two calls waits for the next. */
export interface ChatInput {
  /** @returns undefined when no line follows */
  next(prompt: string): Promise<string | undefined>;
  close(): void;
}

/** Asks terminals to mark what is pasted. */
const MARK_PASTES = { on: "\x1b[?2004h", off: "\x1b[?2004l" } as const;

/** Keys come one by one, and are echoed by the editor alone. */
const RAW = { on: true, off: false } as const;

const HISTORY = 500;

/** A line editor on the process's own terminal, with a history; keys are not echoed while no line is asked for. */
export class EditedInput implements ChatInput {
  readonly #gate: KeyGate;
  readonly #editor: Interface;
  readonly #onInterrupt: () => void;
  readonly #closed = Promise.withResolvers<undefined>();

  /** @param onInterrupt called for each Ctrl-C that does not just clear a line */
  constructor(onInterrupt: () => void) {
    this.#onInterrupt = onInterrupt;
    this.#gate = new KeyGate(onInterrupt);
    Deno.stdin.setRaw(RAW.on);
    process.stdout.write(MARK_PASTES.on);
    this.#editor = createInterface({
      input: this.#gate.keys,
      output: process.stdout,
      terminal: true,
      historySize: HISTORY,
    });
    this.#editor.on("SIGINT", () => this.#interrupt());
    this.#editor.on("close", () => this.#closed.resolve(undefined));
    this.#read().catch(() => this.#closed.resolve(undefined));
  }

  async next(prompt: string): Promise<string | undefined> {
    const line = Promise.withResolvers<string>();
    this.#editor.once("line", line.resolve);
    this.#editor.setPrompt(prompt);
    this.#editor.prompt();
    this.#gate.open();
    const typed = await Promise.race([line.promise, this.#closed.promise]);
    this.#editor.off("line", line.resolve);
    return typed?.replaceAll(LINE_BREAK, "\n").trimEnd();
  }

  close(): void {
    this.#editor.close();
    process.stdout.write(MARK_PASTES.off);
    Deno.stdin.setRaw(RAW.off);
  }

  /** As in a shell: clears what was typed, if anything was. */
  #interrupt(): void {
    if (this.#editor.line === "") return this.#onInterrupt();
    this.#editor.write(null, { ctrl: true, name: "e" });
    this.#editor.write(null, { ctrl: true, name: "u" });
  }

  /** Ends with the terminal; a read that waits for a key at the end of the conversation is left behind. */
  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const bytes of Deno.stdin.readable) this.#gate.type(decoder.decode(bytes, { stream: true }));
    } finally {
      // A terminal that hung up is an error to read from; either way no more keys come.
      this.#gate.end();
    }
  }
}

/** Lines of a stream, such as a pipe. */
export class StreamedInput implements ChatInput {
  readonly #lines: AsyncGenerator<string>;

  /** @param signal ends the lines; a read that still waits is left behind */
  constructor(stream: ReadableStream<Uint8Array>, signal: AbortSignal) {
    this.#lines = linesOf(stream, signal);
  }

  async next(): Promise<string | undefined> {
    const { done, value } = await this.#lines.next();
    return done ? undefined : value;
  }

  close(): void {}
}

async function* linesOf(stream: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<string, undefined> {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  const aborted = new Promise<{ done: true; value: undefined }>((resolve) => {
    signal.addEventListener("abort", () => resolve({ done: true, value: undefined }), { once: true });
  });
  let rest = "";
  for (;;) {
    const { done, value } = await Promise.race([reader.read(), aborted]);
    if (done) break;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "" && !signal.aborted) yield rest;
}
