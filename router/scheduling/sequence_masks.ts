/**
 * Masks of one sequence whose answer has a grammar: those for its next draws, as far as they have arrived. A state is
 * counted by the tokens of the answer before it. Knows states and words; knows nothing of grammars or of spans.
 */

import type { Span } from "../../engine/span.ts";
import type { Constraint } from "./constraint.ts";

/** A mask takes 0.1 to 0.5 ms; a step that went without its sequence would cost the sequence a whole one. */
export const PATIENCE_MS = 5;

/** Most rows of an audit whose draws have masks: each is as long as the vocabulary has bits. */
export const MASKED_AUDIT_ROWS = 64;

/** What is needed: masks of the states [from, to]. */
export interface NeededStates {
  readonly from: number;
  readonly to: number;
  /** Whether they may come while the rows before them are computed. */
  readonly mayFollow: boolean;
}

/** A window of consecutive states. */
export class SequenceMasks {
  /** Of one mask. */
  readonly words: number;
  readonly #constraint: Constraint;
  readonly #promptTokens: number;
  #from = 0;
  #masks: Uint32Array = new Uint32Array(0);
  #version = 0;
  #pending: NeededStates | undefined;
  #arrival: Promise<void> = Promise.resolve();
  #isSlow = false;

  /** @param shape length of the prompt in tokens, and of a mask in words */
  constructor(constraint: Constraint, { promptTokens, words }: { promptTokens: number; words: number }) {
    this.#promptTokens = promptTokens;
    this.#constraint = constraint;
    this.words = words;
  }

  /** Whether masks come soon enough for a step that begins without them; a slow grammar's would hold others up. */
  get areInTime(): boolean {
    return !this.#isSlow;
  }

  /** Settles when what was asked for last has arrived, is out of date, or failed. */
  get arrival(): Promise<void> {
    return this.#arrival;
  }

  /** Whether all are there. */
  covers({ from, to }: Pick<NeededStates, "from" | "to">): boolean {
    return from >= this.#from && (to + 1 - this.#from) * this.words <= this.#masks.length;
  }

  /** Whether a step that needs them cannot begin. */
  holdUp(needed: NeededStates): boolean {
    return !this.covers(needed) && !(needed.mayFollow && this.areInTime);
  }

  /**
   * What a span of rows [from, end) carries: a mask for each row that is drawn after, or that the only one follows.
   * Does not copy: what has arrived is never written again.
   */
  ofRows(logits: Span["logits"], from: number, end: number): Pick<Span, "masks" | "masksFollow"> {
    if (logits === "none") return {};
    const first = (logits === "audit" ? from + 1 : end) - this.#promptTokens;
    const last = end - this.#promptTokens;
    if (!this.covers({ from: first, to: last })) return { masksFollow: true };
    return { masks: this.#masks.subarray((first - this.#from) * this.words, (last + 1 - this.#from) * this.words) };
  }

  /** Whether the same have been asked for and are on their way. */
  expects({ from, to }: NeededStates): boolean {
    return this.#pending?.from === from && this.#pending.to === to;
  }

  /**
   * Asks for masks; resolves when they have arrived, or are out of date.
   * @param tokens of the answer, before the state `to`
   * @throws {CodedError}
   */
  fetch(needed: NeededStates, tokens: Uint32Array): Promise<void> {
    this.#pending = needed;
    this.#arrival = this.#receive(needed, tokens, ++this.#version);
    return this.#arrival;
  }

  /** A step went on without them: the next ones are waited for, until some come soon enough. */
  late(): void {
    this.#isSlow = true;
  }

  /** Tokens of the answer were replaced: what was fetched for them is no longer valid. */
  drop(): void {
    this.#version++;
    this.#pending = undefined;
    this.#masks = new Uint32Array(0);
  }

  /** Frees what is kept for the answer elsewhere. */
  close(): void {
    this.drop();
    this.#constraint.close();
  }

  async #receive(needed: NeededStates, tokens: Uint32Array, version: number): Promise<void> {
    const askedAtMs = performance.now();
    const masks = await this.#constraint.masks(tokens, needed.from, this.words);
    if (version !== this.#version) return;
    // A step that was to take longer may have waited for longer, and none went on without them.
    if (!needed.mayFollow || this.#isSlow) this.#isSlow = performance.now() - askedAtMs > PATIENCE_MS;
    this.#pending = undefined;
    this.#from = needed.from;
    this.#masks = masks;
  }
}
