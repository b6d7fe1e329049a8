/** Rows that pass through the layers together: what the plan of a step hands to the layer loop and to the sampler. */

import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { LengthRange } from "./pass/length_ranges.ts";
import type { OwnedRange } from "./exchange.ts";
import type { SequenceState } from "./kv/sequences.ts";
import type { SparseSettings } from "./span.ts";

/**
 * The products of a batch: `tiled` for prefill, `dense` for decode rows that attend densely (decode, corrections, audits), and
 * `vector` for other decode rows, whose quantised weights never go to matrix units. Chosen by the kind of span, never by the
 * number of rows, so that a row's bits do not depend on its company.
 */
export type ProductFamily = "tiled" | "dense" | "vector";

/** Rows of one batch that attend alike. */
export interface RowRun extends RowRange {
  /**
   * Sparse layers read a selection of this shape, at most so large; with a coverage, some of the rows are adaptive.
   * Undefined: everything.
   */
  readonly sparse: SparseSettings | undefined;
  /** At least as many local KV rows as any of the rows sees; of decode rows a rounded number. */
  readonly longest: number;
  /**
   * At least as many positions of one set as this worker keeps: all of a selection where sparse layers read replicas, else
   * those in its slice. 0 without a selection.
   */
  readonly kept: number;
  /** Those of its rows that are consecutive in one sequence, in order. */
  readonly blocks: readonly RowRange[];
  /** Its rows by how much they see, in order; none of `blocks` is cut by them. */
  readonly lengths: readonly LengthRange[];
}

/** A row of a batch, with its sequence and position. */
export interface BatchRow {
  /** In its batch. */
  readonly row: number;
  /** Index of its span in the step. */
  readonly span: number;
  readonly sequence: SequenceState;
  readonly position: number;
}

/** Rows of a batch that are consecutive in one sequence. */
export interface SequencePiece extends RowRange {
  readonly sequence: SequenceState;
  /** Position of the first. */
  readonly from: number;
  readonly attention: "dense" | "sparse";
}

/** A row after which a token is drawn. */
export interface DrawnRow extends BatchRow {
  /** `keep`: its logits wait for an audit; `compare`: they are compared with what was kept at its position. */
  readonly audit: "keep" | "compare" | undefined;
  /** Which tokens may be drawn, as in `Span.masks`; `late`: not known when the step begins; undefined: all. */
  readonly mask: Uint32Array | "late" | undefined;
  /** The products that make its logits: those of its batch, and for prefill, whose rows are few here, `vector`. */
  readonly head: Exclude<ProductFamily, "tiled">;
}

/** A row whose next token is known. */
export interface ScoredRow extends Pick<BatchRow, "row" | "span"> {
  readonly target: number;
}

/** Rows that pass through the layers together, with the products of one family. */
export interface RowBatch {
  readonly product: ProductFamily;
  readonly rows: number;
  /** Ids; of drawn tokens that have not left the GPU, their places instead (`carry_tokens.ts`). */
  readonly tokens: Uint32Array<ArrayBuffer>;
  /** Whether tokens of some rows have not left the GPU. */
  readonly carries: boolean;
  readonly positions: Uint32Array<ArrayBuffer>;
  readonly table: Uint32Array<ArrayBuffer>;
  /** The same for layers with a window of their own; undefined where there are none. */
  readonly localTable: Uint32Array<ArrayBuffer> | undefined;
  readonly runs: readonly RowRun[];
  /** In the order of the batch's rows. */
  readonly drawn: readonly DrawnRow[];
  readonly scored: readonly ScoredRow[];
  /** Rows that read a selection in sparse layers. */
  readonly sparse: readonly BatchRow[];
  /** The pieces of sequences that its rows are, in order. */
  readonly pieces: readonly SequencePiece[];
  /** Whether its sparse layers read replicas of what other workers hold; else they exchange states. */
  readonly replicated: boolean;
  /**
   * Worker that computes all of it, and sends its keys and values to the others, see `whole_sequences.ts`; undefined: `ranges` says
   * which rows each computes.
   */
  readonly computer: number | undefined;
  /** Which worker computes which rows, when they are split; undefined: every worker computes every row. */
  readonly ranges: readonly OwnedRange[] | undefined;
  /** By worker: whether it holds anything that rows of the batch see, sparse rows left out in `denseHolders`. */
  readonly holders: readonly boolean[];
  readonly denseHolders: readonly boolean[];
}
