/** Where the scores, candidates and chosen positions of a run of sparse rows lie on the GPU. */

import type { Selection } from "../../kernels/attention/decode_attention.ts";
import type { ScoreOutput } from "../../kernels/attention/kv_pages.ts";
import { NO_POSITION, setsOf } from "../../kernels/attention/row_table.ts";
import { SPLIT_ROWS } from "../../kernels/attention/split/split_cut.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { BatchRow, RowBatch, RowRun } from "../row_batch.ts";

type Memory = Pick<LoadedModel, "scratch" | "config">;

/** A run whose rows are sparse. */
export type SparseRun = RowRun & { readonly sparse: NonNullable<RowRun["sparse"]> };

/** Whether a run has sparse rows. */
export function isSparse(run: RowRun): run is SparseRun {
  return run.sparse !== undefined;
}

/** The sparse rows of a run, in order. */
export function rowsOf(batch: RowBatch, run: SparseRun): readonly BatchRow[] {
  return batch.sparse.filter(({ row }) => row >= run.first && row < run.first + run.rows);
}

/** Eighths of a power of two: at most an eighth of the workgroups of a dispatch finds nothing to do. */
const BUCKETS_AN_OCTAVE = 8;

/**
 * KV rows that the dispatches of a decode row are made for when it sees `longest`: the same for many tokens in a row, so
 * that their steps have the same shape. Changes no bits.
 */
export function longestBucket(longest: number): number {
  const width = Math.max(SPLIT_ROWS, 2 ** Math.floor(Math.log2(Math.max(1, longest))) / BUCKETS_AN_OCTAVE);
  return Math.ceil(longest / width) * width;
}

/** Scores that are kept of a row and query head; in steps, so that working memory does not grow with every token. */
export function scoreStride(longest: number): number {
  return Math.ceil(Math.max(1, longest) / 64) * 64;
}

/** Where the attention of a select layer leaves its scores. */
export function scoresOf({ scratch, config }: Memory, run: SparseRun): ScoreOutput {
  const stride = scoreStride(run.longest);
  return { scores: scratch.take(`scores (${run.sparse.heads})`, "f32", [run.rows, config.heads, stride]), stride };
}

/** The selection that the sparse layers of a run read; valid once the select layer before them has chosen. */
export function selectionOf({ scratch, config }: Memory, run: SparseRun): Selection {
  const stride = scoreStride(run.kept);
  const { heads } = run.sparse;
  const sets = setsOf(heads, config);
  return {
    positions: scratch.take(`selection (${heads})`, "u32", [run.rows, sets, stride]),
    sets,
    stride,
    shapes: [heads],
  };
}

/**
 * What the same layers read of another worker's slice, where they read it from copies.
 * @param slice.longest at least the rows that any row visits in it
 */
export function sliceSelectionOf(
  memory: Memory,
  run: SparseRun,
  { owner, longest }: { readonly owner: number; readonly longest: number },
): Selection {
  const { heads, budget } = run.sparse;
  const { sets, shapes } = selectionOf(memory, run);
  const stride = scoreStride(Math.min(budget, longest));
  const positions = memory.scratch.take(`selection of slice ${owner} (${heads})`, "u32", [run.rows, sets, stride]);
  return { positions, sets, stride, shapes };
}

/** Where the attention of a select layer leaves its scores in a copied slice, for the one worker that chooses for all. */
export function sliceScoresOf(
  { scratch, config }: Memory,
  run: SparseRun,
  { owner, longest }: { readonly owner: number; readonly longest: number },
): ScoreOutput {
  const stride = scoreStride(longest);
  const name = `scores of slice ${owner} (${run.sparse.heads})`;
  return { scores: scratch.take(name, "f32", [run.rows, config.heads, stride]), stride };
}

/** At least the positions that any row of a batch sees in all slices together. */
export function wholeLongest({ pieces }: Pick<RowBatch, "pieces">): number {
  return longestBucket(Math.max(...pieces.map(({ from, rows }) => from + rows)));
}

/** What that worker chooses, before it is dealt to the slices: positions of the sequence. */
export function wholeSelectionOf(
  { scratch, config }: Memory,
  batch: Pick<RowBatch, "pieces">,
  run: SparseRun,
): Omit<Selection, "shapes"> {
  const { heads, budget } = run.sparse;
  const sets = setsOf(heads, config);
  const stride = scoreStride(Math.min(budget, wholeLongest(batch)));
  const positions = scratch.take(`chosen of all slices (${heads})`, "u32", [run.rows, sets, stride]);
  return { positions, sets, stride };
}

/** Values that this worker's best candidates of a run compete with, in the layout of its selection. */
export function candidateValuesOf(memory: Memory, run: SparseRun): Tensor {
  const { sets, stride } = selectionOf(memory, run);
  return memory.scratch.take(`candidate values (${run.sparse.heads})`, "f32", [run.rows, sets, stride]);
}

/** The positions of a list that is padded to the length of its place. */
export function chosenOf(padded: Uint32Array): Uint32Array {
  const end = padded.indexOf(NO_POSITION);
  return end < 0 ? padded : padded.subarray(0, end);
}
