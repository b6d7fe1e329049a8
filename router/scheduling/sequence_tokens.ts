/**
 * The tokens of one sequence: its prompt, what its reader has of the answer, and after that drafts, which full
 * attention may still overrule. Knows tokens and which of them the reader has; knows nothing of caches or steps.
 */

import { at } from "../../kernels/at.ts";
import { PAGE_TOKENS, type SpanAudit, type TokenLogprobs } from "../../engine/span.ts";
import type { Check } from "./correction.ts";
import type { EventQueue } from "./event_queue.ts";
import type { Work } from "./work.ts";
import type { GenerationRequest } from "./generation.ts";
import { type PageKey, pageKey } from "./prefix_cache.ts";

/** What an audit found. */
export interface AuditOutcome {
  /** One for each row whose next token was known, up to the one that made the drafts start over. */
  readonly checks: readonly Check[];
  /** Drafts that were thrown away. */
  readonly dropped: number;
  /** Position of the token that replaced a draft; undefined: none was. */
  readonly overruled: number | undefined;
}

/** Tokens by position. */
export class SequenceTokens {
  readonly #request: GenerationRequest;
  readonly #events: EventQueue;
  #tokens: Uint32Array<ArrayBuffer>;
  #length: number;
  #confirmed: number;
  readonly #keys: PageKey[] = [];

  constructor(request: GenerationRequest, events: EventQueue) {
    this.#request = request;
    this.#events = events;
    const { promptTokens } = request;
    this.#length = this.#confirmed = promptTokens.length;
    this.#tokens = new Uint32Array(2 * promptTokens.length + 64);
    this.#tokens.set(promptTokens);
  }

  /** Drafts included. */
  get length(): number {
    return this.#length;
  }

  /** Drafts left out. */
  get confirmed(): number {
    return this.#confirmed;
  }

  /** The first tokens of the answer, drafts among them. */
  answer(count: number): Uint32Array {
    const prompt = this.#request.promptTokens.length;
    return this.slice(prompt, prompt + count);
  }

  /** Tokens that the reader got. */
  get generated(): number {
    return this.#confirmed - this.#request.promptTokens.length;
  }

  /** Whether the answer may end with a draft: nothing is drawn after a stop token. */
  get endsWithStopDraft(): boolean {
    return this.#length > this.#confirmed && this.#isStop(this.#length - 1);
  }

  /** Whether so many more tokens are all, or more, that were asked for. */
  endsWithin(tokens: number): boolean {
    return this.#length + tokens >= this.#request.promptTokens.length + this.#request.maxTokens;
  }

  /** A copy of [from, end). */
  slice(from: number, end: number): Uint32Array<ArrayBuffer> {
    return this.#tokens.slice(from, Math.min(end, this.#length));
  }

  /** Keys of the first full pages of tokens, at most `count`. */
  keys(count: number): readonly PageKey[] {
    // Drafts may still change.
    const full = Math.min(count, Math.floor(this.#confirmed / PAGE_TOKENS));
    for (let i = this.#keys.length; i < full; i++) {
      this.#keys.push(pageKey(this.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS)));
    }
    return this.#keys.slice(0, full);
  }

  /** Adds a token that may still be overruled. */
  draft(token: number): void {
    if (this.#length === this.#tokens.length) {
      const grown = new Uint32Array(2 * this.#length);
      grown.set(this.#tokens);
      this.#tokens = grown;
    }
    this.#tokens[this.#length++] = token;
  }

  /** Adds a token that stays, and passes it to the reader; there must be no drafts. */
  draw(token: number, logprobs: TokenLogprobs | undefined): void {
    this.draft(token);
    this.#confirm(logprobs);
  }

  /** Forgets the drafts. */
  dropDrafts(): void {
    this.#length = this.#confirmed;
  }

  /**
   * Compares the tokens after so many rows with what full attention draws there, and takes in what it draws after the newest one.
   * @param withholdsTokens drafts become tokens as far as they agree; where one does not, the dense token takes its place
   */
  audit(
    { from, rows }: Pick<Work, "from" | "rows">,
    { tokens, divergences, logprobs }: SpanAudit,
    withholdsTokens: boolean,
  ): AuditOutcome {
    const checks: Check[] = [];
    for (const [i, dense] of tokens.subarray(0, rows).entries()) {
      const position = from + i + 1;
      const token = position < this.#length ? this.#tokens[position] : undefined;
      if (token === undefined) {
        this.draw(dense, logprobs?.[i]);
        break;
      }
      const divergence = divergences[i] ?? NaN;
      const index = position - this.#request.promptTokens.length;
      checks.push({ index, token, dense, divergence: Number.isNaN(divergence) ? undefined : divergence });
      if (!withholdsTokens) continue;
      if (token !== dense) {
        return { checks, dropped: this.#overrule(position, dense, logprobs?.[i]), overruled: position };
      }
      this.#confirm(logprobs?.[i]);
    }
    return { checks, dropped: 0, overruled: undefined };
  }

  /** Why the answer is over, if it is. */
  finishReason(): "stop" | "length" | undefined {
    if (this.generated > 0 && this.#isStop(this.#confirmed - 1)) return "stop";
    return this.generated >= this.#request.maxTokens ? "length" : undefined;
  }

  /** @returns drafts thrown away, the overruled one included */
  #overrule(position: number, dense: number, logprobs: TokenLogprobs | undefined): number {
    const dropped = this.#length - position;
    this.#length = position;
    this.draw(dense, logprobs);
    return dropped;
  }

  /** The first draft is none any more. */
  #confirm(logprobs: TokenLogprobs | undefined): void {
    const token = at(this.#tokens, this.#confirmed++);
    this.#events.push({ kind: "token", token, logprobs });
  }

  #isStop(position: number): boolean {
    return this.#request.stopTokens.includes(at(this.#tokens, position));
  }
}
