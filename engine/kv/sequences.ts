/**
 * The open sequences of an engine: their settings, their tokens, and which slot and pages of the KV slice they have.
 * Changes only with steps that `check_step.ts` has passed. Knows slots and counts of pages; knows nothing of rows.
 */

import { EngineError } from "../errors.ts";
import { type KvSlice, SLOTS } from "./kv_slice.ts";
import type { PageShare } from "../page_map.ts";
import { PAGE_TOKENS, type SequenceId, type SequenceOpening, type SpanResult, type Step } from "../span.ts";

/** What the engine remembers of an open sequence. */
export interface SequenceState {
  readonly open: SequenceOpening;
  /** Row of the page table. */
  readonly slot: number;
  /** That it has on all workers, of its prefix and of its spans, in the order of its positions. */
  readonly physicalPages: number[];
  /**
   * Token at each position, as far as `prefixTokens` and spans have brought them; never cut, because length is not state.
   * Positions of a prefix without tokens are empty.
   */
  readonly tokens: (number | undefined)[];
  /** Index of the step with its newest span. */
  newestStep?: number;
  /** What that step has drawn last, once it is known. */
  drawn?: number | undefined;
}

/** The open sequences by their ids. */
export class Sequences {
  readonly #slice: KvSlice;
  readonly #share: PageShare;
  readonly #states = new Map<SequenceId, SequenceState>();
  readonly #freeSlots: number[] = Array.from({ length: SLOTS }, (_, i) => SLOTS - 1 - i);

  constructor(slice: KvSlice, share: PageShare) {
    this.#slice = slice;
    this.#share = share;
  }

  get open(): ReadonlyMap<SequenceId, SequenceState> {
    return this.#states;
  }

  /** Opens sequences, gives them the pages of their spans, and remembers their tokens. The step must have been checked. */
  begin(step: Step): void {
    for (const open of step.open) this.#open(open);
    for (const { sequence, from, tokens, newPages, sampled } of step.spans) {
      const state = this.#of(sequence);
      this.#extend(state, newPages);
      tokens.forEach((token, i) => state.tokens[from + i] = token);
      // It is known already, or comes with the result of the step before.
      if (sampled) state.tokens[from + tokens.length - 1] = state.drawn;
      state.newestStep = step.index;
      state.drawn = undefined;
    }
  }

  /** Remembers tokens that a step drew, for the rows after them, which may have begun already. */
  learn({ index, spans }: Step, results: readonly SpanResult[]): void {
    for (const [i, { sequence, from, tokens }] of spans.entries()) {
      const [state, end, result] = [this.#states.get(sequence), from + tokens.length, results[i]];
      const token = result?.token ?? result?.audit?.tokens.at(-1);
      if (state === undefined || token === undefined) continue;
      if (state.newestStep === index) state.drawn = token;
      else if (end < state.tokens.length) state.tokens[end] ??= token;
    }
  }

  /**
   * After `begin`, when the step failed: closes what it opened and takes back the pages that it gave. The rows from each
   * span's start on may hold anything then.
   */
  undo(step: Step): void {
    for (const { sequence, newPages } of step.spans) {
      // When two steps fail, the first one has closed what it had opened for both.
      const state = this.#states.get(sequence);
      if (state !== undefined) state.physicalPages.length -= newPages.length;
    }
    for (const { sequence } of step.open) this.#release(sequence);
  }

  /** After `begin`, when the step succeeded: forgets what it releases. */
  end(step: Step): void {
    for (const sequence of step.release) this.#release(sequence);
  }

  #open(open: SequenceOpening): void {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) {
      throw new EngineError("kv_exhausted", `Cannot open sequence ${open.sequence}: all ${SLOTS} slots are taken`);
    }
    const tokens = [...open.prefixTokens];
    tokens.length = open.prefixPages.length * PAGE_TOKENS;
    const state: SequenceState = { open, slot, physicalPages: [], tokens };
    this.#states.set(open.sequence, state);
    this.#extend(state, open.prefixPages);
  }

  /** Of the pages of all workers, only this worker's own go into its table. */
  #extend(state: SequenceState, pages: Uint32Array): void {
    const { map, index } = this.#share;
    const { open: { pageOffset }, physicalPages } = state;
    const { length: before } = physicalPages;
    const own = pages.filter((_, i) => map.owner(pageOffset, before + i) === index).map((page) =>
      page - map.base(index)
    );
    this.#slice.writeTable(state.slot, map.pagesBefore(index, pageOffset, before), own);
    for (const page of pages) physicalPages.push(page);
  }

  #release(sequence: SequenceId): void {
    this.#freeSlots.push(this.#of(sequence).slot);
    this.#states.delete(sequence);
  }

  #of(sequence: SequenceId): SequenceState {
    const state = this.#states.get(sequence);
    if (state === undefined) throw new EngineError("invalid_step", `Cannot use sequence ${sequence}: it is not open`);
    return state;
  }
}
