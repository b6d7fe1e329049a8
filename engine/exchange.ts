/**
 * What the layer loop needs from whoever connects the slices of a group. Owned by the engine, which never learns how
 * many workers there are; a worker alone in its group uses `ALONE`, which does nothing.
 */

import type { AttentionState } from "../kernels/kv_pages.ts";

/** Where in a step an exchange happens; all workers of a group pass the same points in the same order. */
export interface ExchangePoint {
  readonly step: number;
  readonly layer: number;
  /** Rows of the batch. */
  readonly rows: number;
}

/** Returns undefined when nothing had to be waited for, so that the loop need not yield. */
export interface Exchange {
  /**
   * Replaces each state by the merge of all workers' states, in the order of their indices.
   * @param state o f32 [rows, heads, headDim], lse f32 [rows, heads], natural logarithm
   */
  states(point: ExchangePoint, state: AttentionState): Promise<void> | undefined;
}

/** The exchange of a group of one: every state is already whole. */
export const ALONE: Exchange = { states: () => undefined };
