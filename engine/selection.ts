/**
 * The choice of positions in a select layer, for the runs of sparse rows of a batch: raw scores come out of the full
 * attention, are pooled under the merged log-sum-exp, and the best positions are kept for the sparse layers that follow.
 * Knows heads and budgets; knows nothing of workers. The selection stays on the GPU.
 */

import type { ScoreOutput, Selection } from "../kernels/attention.ts";
import { poolScores } from "../kernels/pool_scores.ts";
import type { Commands } from "../kernels/pipeline.ts";
import { setsOf } from "../kernels/row_table.ts";
import type { Scratch } from "../kernels/scratch.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { topK } from "../kernels/top_k.ts";
import type { RowRun } from "./batch.ts";
import type { ModelConfig } from "./model_config.ts";

/** A run whose rows are sparse. */
export type SparseRun = RowRun & { readonly sparse: NonNullable<RowRun["sparse"]> };

interface Place {
  readonly commands: Commands;
  readonly scratch: Scratch;
  readonly config: ModelConfig;
}

/** Whether a run has sparse rows. */
export function isSparse(run: RowRun): run is SparseRun {
  return run.sparse !== undefined;
}

/** Scores that are kept of a row and query head; in steps, so that working memory does not grow with every token. */
export function scoreStride(longest: number): number {
  return Math.ceil(longest / 64) * 64;
}

/** Where the attention of a select layer leaves its scores. */
export function scoresOf({ scratch, config }: Place, run: SparseRun): ScoreOutput {
  const stride = scoreStride(run.longest);
  return { scores: scratch.take(`scores (${run.sparse.heads})`, "f32", [run.rows, config.heads, stride]), stride };
}

/** The selection that the sparse layers of a run read; valid after `choose`. */
export function selectionOf({ scratch, config }: Place, run: SparseRun): Selection {
  const stride = scoreStride(Math.min(run.sparse.budget, run.longest));
  const { heads } = run.sparse;
  const sets = setsOf(heads, config);
  return {
    positions: scratch.take(`selection (${heads})`, "u32", [run.rows, sets, stride]),
    sets,
    stride,
    shapes: [heads],
  };
}

/** Chooses positions for a run from its scores and the log-sum-exp over all workers, f32 [rows of the batch, heads]. */
export function choose(place: Place, run: SparseRun, rows: { readonly lse: Tensor; readonly rowTable: Tensor }): void {
  const { commands, scratch, config } = place;
  const { scores, stride } = scoresOf(place, run);
  const { positions, sets, stride: keptStride } = selectionOf(place, run);
  const values = scratch.take("pooled scores", "f32", [run.rows, sets, stride]);
  const range = { firstRow: run.first, rows: run.rows, rowTable: rows.rowTable };
  poolScores(commands, {
    ...range,
    shape: config,
    scores,
    scoreStride: stride,
    lse: rows.lse,
    longest: run.longest,
    values,
    sets,
    stride,
  });
  topK(commands, {
    ...range,
    heads: config.heads,
    kvHeads: config.kvHeads,
    values,
    sets,
    stride,
    positions,
    keptStride,
  });
}
