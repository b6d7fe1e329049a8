/** Answers on the terminal as they come, and what they cost, alone and together. */

import type { Terminal } from "../../terminal.ts";
import type { ChatEvent, ChatUsage } from "./chat_client.ts";
import { STYLES, TextStyle } from "./text_style.ts";

/** What answers cost that have been given. */
export class ChatStats {
  #answers = 0;
  #prompt = 0;
  #cached = 0;
  #drawn = 0;
  #timed = 0;
  #seconds = 0;

  /** @param seconds from the first token to the last */
  add({ promptTokens, cachedTokens, completionTokens }: ChatUsage, seconds: number): void {
    this.#answers++;
    this.#prompt += promptTokens;
    this.#cached += cachedTokens;
    this.#drawn += completionTokens;
    // The first token belongs to the reading of the prompt.
    this.#timed += Math.max(0, completionTokens - 1);
    this.#seconds += seconds;
  }

  /** One line. */
  describe(): string {
    const speed = this.#seconds > 0 ? `, ${(this.#timed / this.#seconds).toFixed(1)} tokens/s` : "";
    const read = `${this.#cached} of ${this.#prompt} prompt tokens cached`;
    const answers = this.#answers === 1 ? "1 answer" : `${this.#answers} answers`;
    return `${answers}: ${this.#drawn} tokens${speed}, ${read}`;
  }
}

/** One answer. */
export class ShownAnswer {
  text = "";
  readonly #terminal: Terminal;
  readonly #stats: ChatStats;
  /** Undefined where escape sequences are not wanted. */
  readonly #style: TextStyle | undefined;
  #firstTextMs: number | undefined;
  /** What it has cost so far, and when that was said. */
  #cost: { readonly usage: ChatUsage; readonly atMs: number } | undefined;
  #isReasoning = false;

  constructor(terminal: Terminal, stats: ChatStats, isStyled: boolean) {
    this.#terminal = terminal;
    this.#stats = stats;
    this.#style = isStyled ? new TextStyle() : undefined;
  }

  show(event: ChatEvent): void {
    switch (event.kind) {
      case "prefill":
        return this.#terminal.progress("Reading", event.fraction);
      case "reasoning":
        this.#firstTextMs ??= performance.now();
        return this.#reason(printable(event.text));
      case "text":
        this.#firstTextMs ??= performance.now();
        this.#endReasoning();
        this.text += event.text;
        return this.#terminal.write(this.#style?.push(printable(event.text)) ?? printable(event.text));
      case "usage":
        this.#cost = { usage: event.usage, atMs: performance.now() };
    }
  }

  /** It is complete. */
  complete(): void {
    this.#close();
    const { usage } = this.#cost ?? {};
    if (usage !== undefined) this.#terminal.line(`\n${usageLine(usage, this.#seconds)}`);
  }

  /** It was stopped, or broke off. */
  cut(): void {
    this.#close();
  }

  /** For people only: who reads a pipe wants the answer. */
  #reason(text: string): void {
    if (this.#style === undefined) return;
    if (!this.#isReasoning) this.#terminal.write(STYLES.dim);
    this.#isReasoning = true;
    this.#terminal.write(text);
  }

  #endReasoning(): void {
    if (this.#isReasoning) this.#terminal.write(`${STYLES.plain}\n\n`);
    this.#isReasoning = false;
  }

  get #seconds(): number {
    const [first, last] = [this.#firstTextMs, this.#cost?.atMs];
    return first === undefined || last === undefined ? 0 : Math.max(0, last - first) / 1000;
  }

  #close(): void {
    if (this.#cost !== undefined) this.#stats.add(this.#cost.usage, this.#seconds);
    this.#endReasoning();
    this.#terminal.write(this.#style?.end() ?? "");
  }
}

/** A model may say anything, escape sequences included, which are for the terminal and not for people. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, "");
}

function usageLine({ promptTokens, completionTokens, cachedTokens, attention }: ChatUsage, seconds: number): string {
  const parts = [
    `${completionTokens} tokens`,
    ...(seconds > 0 && completionTokens > 1 ? [`${((completionTokens - 1) / seconds).toFixed(1)} tokens/s`] : []),
    `${cachedTokens} of ${promptTokens} prompt tokens cached`,
    ...(attention === undefined ? [] : [describeAttention(attention)]),
  ];
  return `[${parts.join(", ")}]`;
}

function describeAttention({ mode, budget, coverage, context, audit }: NonNullable<ChatUsage["attention"]>): string {
  const checked = audit === undefined ? "" : `, ${audit.agreed} of ${audit.checked} checked tokens agree with dense`;
  if (coverage !== undefined) return `${mode}: ${coverage} of the attention to ${context} positions${checked}`;
  return `${mode === "sparse" && budget !== undefined ? `sparse: ${budget} of ${context} positions` : mode}${checked}`;
}
