/**
 * What the layer loop needs from the connections between the slices of a group. Owned by the engine; a worker alone in its
 * group uses `ALONE`, which does nothing. Implemented over peer links by `workers/`.
 *
 * All workers of a group pass the same points in the same order. Every method may reject with a coded error when a peer
 * or the router does not answer in time: the step is lost then.
 */

import type { AttentionState } from "../kernels/attention/kv_pages.ts";
import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { SequenceId } from "./span.ts";

/** Index of the worker that draws tokens. */
export const LEAD = 0;

/** Where in a step an exchange happens. */
export interface ExchangePoint {
  readonly step: number;
  /** Index of the batch within the step. */
  readonly batch: number;
  readonly layer: number;
}

/** Consecutive rows of a batch that one worker computes. */
export interface OwnedRange extends RowRange {
  /** Index of the worker that owns the rows' page. */
  readonly owner: number;
}

/** Attention states as the kernels leave them: this worker's slice only. */
export interface PartialStates extends AttentionState {
  /** Rows of the batch; o f32 [rows, heads, headDim], lse f32 [rows, heads], natural logarithm. */
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
}

/**
 * One list of a select layer: a worker's best local candidates for one row and set, or the chosen ones of all.
 * Positions are global and ascend.
 */
export interface PositionList {
  readonly positions: Uint32Array;
  /** Competition value of each, see `mass.ts`. Empty in answers. */
  readonly values: Float32Array;
}

/** What a worker offers at a select layer, for all sparse rows of a batch. */
export interface Candidates {
  /** Which rows the lists belong to: for each sparse row as many lists as it has sets. */
  readonly rows: readonly {
    readonly sequence: SequenceId;
    readonly position: number;
    /** Positions to choose per list, or at most to choose. */
    readonly budget: number;
    /** Of an adaptive row: what the chosen positions of a list must cover, the fewest that do. */
    readonly coverage?: number;
    readonly sets: number;
    /** Of the replicas that the worker holds for it, when it has any: all workers hold the same. */
    readonly replicas?: number;
  }[];
  /** Row by row, set by set. */
  readonly lists: readonly PositionList[];
}

/** This worker's states, before they are computed. */
export interface ReadyStates {
  /** Submits what was recorded so far, which computes them, and records the merge with those of the peers. Called once. */
  begin(): ArrivingStates;
}

/** States on their way between the workers. */
export interface ArrivingStates {
  /**
   * Sends this worker's states as soon as they are computed, waits for those of the peers, and brings them to the GPU ahead of
   * everything that was recorded since `begin`, which may read them. Must be called once; nothing may be submitted before.
   */
  arrive(): Promise<void>;
}

/** Methods return undefined when nothing had to be waited for, so that the loop need not yield. */
export interface Exchange {
  /**
   * Rows computed by their owners only: this worker has filled its own rows of `q`; fills in the others.
   * @param q f32 [rows of the batch, heads · headDim]
   */
  queries(
    point: ExchangePoint,
    ranges: readonly OwnedRange[],
    q: { readonly tensor: Tensor; readonly rowBytes: number },
  ): Promise<void> | undefined;
  /**
   * Keys and values of rows that one worker computes, and sends to the others. That worker need not wait: they are read once
   * everything recorded before has run, what is recorded next may write over them, and the promise resolves when they have left. On
   * the others it resolves when they are there.
   * @param from index of that worker
   * @param keys bit for bit, u32 [rows, rowBytes / 4]
   */
  keys(
    point: ExchangePoint,
    from: number,
    keys: { readonly tensor: Tensor; readonly rowBytes: number; readonly rows: number },
  ): Promise<void> | undefined;
  /** Sends keys and values to the other workers that have been read already; resolves when they have left. */
  sendKeys(point: ExchangePoint, keys: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Reports how long the layer loop has waited for keys and values of earlier rows. */
  waitedForKeys(ms: number): void;
  /**
   * Merges this worker's states with those of the peers, in the order of their indices, into `merged`.
   * @param ranges given: each owner gets the states of its rows alone, and `merged` holds this worker's own rows, range by
   * range; undefined: every worker gets every row
   * @param states.holders which workers hold any row that these states are over; the others send nothing, and no
   * worker waits for them: their states are empty. All workers pass the same
   * @returns what begins the exchange, when states that are still to arrive have arrived; by then all that this worker sends is
   * recorded, and nothing else may be recorded between. Undefined when the states are whole already: `merged` is not written then
   */
  states(
    point: ExchangePoint,
    ranges: readonly OwnedRange[] | undefined,
    states: { readonly own: PartialStates; readonly merged: AttentionState; readonly holders: readonly boolean[] },
  ): ReadyStates | undefined;
  /**
   * Rows that a selection needs on every worker: this worker has filled those that it owns; fills in the others.
   * @param ranges by owner
   * @param rows keys and values of the entries, bit for bit, u32 [entries, rowBytes / 4]
   */
  replicas(
    point: ExchangePoint,
    ranges: readonly OwnedRange[],
    rows: { readonly tensor: Tensor; readonly rowBytes: number },
  ): Promise<void> | undefined;
  /**
   * Tokens that the lead drew in the step before this one, where others need them as well.
   * @param drawn of the lead; those of others are ignored
   */
  tokens(point: ExchangePoint, drawn: Uint32Array): Promise<Uint32Array>;
  /** Offers candidates and returns the chosen positions, list by list; undefined: the worker's own are the chosen ones. */
  select(point: ExchangePoint, candidates: () => Promise<Candidates>): Promise<readonly Uint32Array[]> | undefined;
  /**
   * Rows whose logits are wanted end on the lead worker: completes them there, `rows` f32 [count, hidden].
   * @param owners worker that has computed each of the rows
   */
  gatherOnLead(
    point: ExchangePoint,
    owners: readonly number[],
    rows: { readonly tensor: Tensor; readonly rowBytes: number },
  ): Promise<void> | undefined;
}

/** The exchange of a group of one: every state is already whole. */
export const ALONE: Exchange = {
  queries: () => undefined,
  keys: () => undefined,
  sendKeys: () => Promise.resolve(),
  waitedForKeys: () => {},
  states: () => undefined,
  replicas: () => undefined,
  tokens: (_, drawn) => Promise.resolve(drawn),
  select: () => undefined,
  gatherOnLead: () => undefined,
};
