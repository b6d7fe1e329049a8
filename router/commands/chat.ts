/**
 * `chat`: a conversation in the terminal with a running server.
 * Knows lines and signals; `chat_client.ts` asks the server.
 */

import { SERVICE_FLAGS } from "../config.ts";
import type { Command, FlagValues } from "../command_line.ts";
import { UsageError } from "../errors.ts";
import type { Terminal } from "../terminal.ts";
import {
  ChatClient,
  ChatError,
  type ChatEvent,
  type ChatMessage,
  type ChatQuestion,
  type ChatUsage,
} from "./chat_client.ts";

const flags = {
  url: { kind: "text", value: "URL", default: "http://127.0.0.1:8000/v1", help: "where the server is" },
  apiKey: {
    kind: "text",
    value: "KEY",
    help: "sent to the server; TIDEPOOL_CHAT_API_KEY keeps it out of process lists",
  },
  system: { kind: "text", value: "TEXT", help: "the system message" },
  file: { kind: "text", value: "FILE", help: "a text to talk about: becomes the first message" },
  attention: {
    kind: "choice",
    choices: SERVICE_FLAGS.attention.choices,
    help: "how answers attend to what was said (default: what the server does)",
  },
  budget: SERVICE_FLAGS.budget,
  coverage: SERVICE_FLAGS.coverage,
  correction: {
    kind: "choice",
    choices: SERVICE_FLAGS.correction.choices,
    help: "what becomes of sparse rows (default: what the server does)",
  },
  maxTokens: { kind: "integer", min: 1, max: 2 ** 31 - 1, help: "longest answer (default: what the context holds)" },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Talk to a running server; Ctrl-C ends an answer, then the conversation",
  flags,
  async run(values: Values, terminal: Terminal): Promise<number> {
    const interrupt = new Interrupt();
    try {
      const messages = await opening(values);
      await new Conversation(values, terminal, interrupt).hold(messages);
      return 0;
    } finally {
      interrupt.close();
    }
  },
};

async function opening({ system, file }: Values): Promise<ChatMessage[]> {
  const messages: ChatMessage[] = [];
  if (system !== undefined) messages.push({ role: "system", content: system });
  if (file !== undefined) messages.push({ role: "user", content: await readText(file) });
  return messages;
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Error) throw new UsageError(`Cannot read --file: ${error.message}`);
    throw error;
  }
}

class Conversation {
  readonly #values: Values;
  readonly #terminal: Terminal;
  readonly #interrupt: Interrupt;
  readonly #client: ChatClient;

  constructor(values: Values, terminal: Terminal, interrupt: Interrupt) {
    this.#values = values;
    this.#terminal = terminal;
    this.#interrupt = interrupt;
    this.#client = new ChatClient(values.url, values.apiKey);
  }

  /** Until stdin ends or Ctrl-C comes between questions. */
  async hold(messages: ChatMessage[]): Promise<void> {
    const model = await this.#client.model(this.#interrupt.whole);
    if (this.#terminal.interactive) this.#terminal.line(`${model} at ${this.#values.url}. Ctrl-D ends.`);
    this.#prompt();
    for await (const line of linesOf(Deno.stdin.readable, this.#interrupt.whole)) {
      if (line.trim() !== "") {
        messages.push({ role: "user", content: line });
        const answer = await this.#answer(model, messages);
        // An answer that failed takes its question along, so that asking again does not ask twice.
        if (answer === undefined) messages.pop();
        else messages.push({ role: "assistant", content: answer });
      }
      this.#prompt();
    }
    if (this.#terminal.interactive) this.#terminal.line("");
  }

  /** Streams the answer; undefined when there was none. One that Ctrl-C cut short counts. */
  async #answer(model: string, messages: readonly ChatMessage[]): Promise<string | undefined> {
    const { attention: mode, budget, coverage, correction, maxTokens } = this.#values;
    const question: ChatQuestion = {
      model,
      messages,
      attention: {
        ...(mode === undefined ? {} : { mode }),
        ...(budget === undefined ? {} : { budget }),
        ...(coverage === undefined ? {} : { coverage }),
        ...(correction === undefined ? {} : { correction }),
      },
      ...(maxTokens === undefined ? {} : { maxTokens }),
    };
    const shown = new ShownAnswer(this.#terminal);
    await this.#interrupt.during(async (signal) => {
      try {
        for await (const event of this.#client.ask(question, signal)) shown.show(event);
      } catch (error) {
        if (signal.aborted) this.#terminal.line("\n[stopped]");
        else if (error instanceof ChatError) this.#terminal.error(error.message);
        else throw error;
      }
    });
    return shown.text === "" ? undefined : shown.text;
  }

  #prompt(): void {
    if (this.#terminal.interactive) this.#terminal.write("> ");
  }
}

/** An answer on the terminal. */
class ShownAnswer {
  text = "";
  readonly #terminal: Terminal;
  #firstTextMs: number | undefined;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(event: ChatEvent): void {
    switch (event.kind) {
      case "prefill":
        return this.#terminal.progress("Reading", event.fraction);
      case "text":
        this.#firstTextMs ??= performance.now();
        this.text += event.text;
        // A model may say anything, escape sequences included, which are for the terminal and not for people.
        return this.#terminal.write(event.text.replace(/[^\P{Cc}\n\t]/gu, ""));
      case "usage":
        return this.#terminal.line(`\n${this.#usageLine(event.usage)}`);
    }
  }

  #usageLine({ promptTokens, completionTokens, cachedTokens, attention }: ChatUsage): string {
    const seconds = this.#firstTextMs === undefined ? 0 : (performance.now() - this.#firstTextMs) / 1000;
    const parts = [
      `${completionTokens} tokens`,
      // The first token belongs to the reading of the prompt.
      ...(seconds > 0 && completionTokens > 1 ? [`${((completionTokens - 1) / seconds).toFixed(1)} tokens/s`] : []),
      `${cachedTokens} of ${promptTokens} prompt tokens cached`,
      ...(attention === undefined ? [] : [describeAttention(attention)]),
    ];
    return `[${parts.join(", ")}]`;
  }
}

function describeAttention({ mode, budget, coverage, context, audit }: NonNullable<ChatUsage["attention"]>): string {
  const checked = audit === undefined ? "" : `, ${audit.agreed} of ${audit.checked} checked tokens agree with dense`;
  if (coverage !== undefined) return `${mode}: ${coverage} of the attention to ${context} positions${checked}`;
  return `${mode === "sparse" && budget !== undefined ? `sparse: ${budget} of ${context} positions` : mode}${checked}`;
}

/** Ctrl-C ends the answer that is being given, else the conversation. */
class Interrupt {
  readonly #whole = new AbortController();
  #answer: AbortController | undefined;
  readonly #onSignal = () => (this.#answer ?? this.#whole).abort();

  constructor() {
    Deno.addSignalListener("SIGINT", this.#onSignal);
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

/** Lines until the stream ends or the signal comes; a read that is still waiting for a key then is left behind. */
async function* linesOf(stream: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<string> {
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
