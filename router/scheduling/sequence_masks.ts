/**
 * Masks of one sequence whose answer has a grammar: those for its next draws, as far as they have arrived. A state is
 * counted by the tokens of the answer before it. Knows states and words; knows nothing of grammars or of spans.
 */

import type { Span } from "../../engine/span.ts";
import type { Constraint } from "./constraint.ts";

/** What is needed: masks of the states [from, to]. */
export interface NeededStates {
  readonly from: number;
  readonly to: number;
}

/** A window of consecutive states. */
export class SequenceMasks {
  readonly #constraint: Constraint;
  readonly #promptTokens: number;
  readonly #words: number;
  #from = 0;
  #masks: Uint32Array = new Uint32Array(0);
  #version = 0;
  #pending: NeededStates | undefined;

  /** @param shape length of the prompt in tokens, and of a mask in words */
  constructor(constraint: Constraint, { promptTokens, words }: { promptTokens: number; words: number }) {
    this.#promptTokens = promptTokens;
    this.#constraint = constraint;
    this.#words = words;
  }

  /** Whether all are there. */
  covers({ from, to }: NeededStates): boolean {
    return from >= this.#from && (to + 1 - this.#from) * this.#words <= this.#masks.length;
  }

  /** What a span of rows [from, end) carries: a mask for each row that is drawn after. They must be there. */
  ofRows(logits: Span["logits"], from: number, end: number): Pick<Span, "masks"> {
    if (logits === "none") return {};
    const first = (logits === "audit" ? from + 1 : end) - this.#promptTokens - this.#from;
    const last = end - this.#promptTokens - this.#from;
    return { masks: this.#masks.slice(first * this.#words, (last + 1) * this.#words) };
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
  async fetch(needed: NeededStates, tokens: Uint32Array): Promise<void> {
    const version = ++this.#version;
    this.#pending = needed;
    const masks = await this.#constraint.masks(tokens, needed.from, this.#words);
    if (version !== this.#version) return;
    this.#pending = undefined;
    this.#from = needed.from;
    this.#masks = masks;
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
}
