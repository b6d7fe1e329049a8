/**
 * The choice of positions for rows that one worker computes for all: it has the scores of every slice, so the choice stays on its
 * GPU, and is the one that the group would make. Knows slices and lists; knows nothing of other workers.
 */

import { dealPositions } from "../../kernels/attention/deal_positions.ts";
import { poolScores } from "../../kernels/attention/pool_scores.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { keepBest } from "./keep_best.ts";
import type { KeyCopies } from "./key_copies.ts";
import type { Pass } from "./pass.ts";
import type { SliceOrder } from "./slice_order.ts";
import {
  scoresOf,
  scoreStride,
  selectionOf,
  sliceScoresOf,
  sliceSelectionOf,
  type SparseRun,
  wholeLongest,
  wholeSelectionOf,
} from "./selection_buffers.ts";

/**
 * Chooses positions for a run from its scores in all slices, and deals them to these.
 * @param input.lse f32 [rows of the batch, heads], over all slices
 * @param input.sparseLayers layers that will read the selection
 */
export function chooseWhole(
  pass: Pass,
  run: SparseRun,
  { copies, order, lse, sparseLayers }: {
    readonly copies: KeyCopies;
    readonly order: SliceOrder;
    readonly lse: Tensor;
    readonly sparseLayers: number;
  },
): void {
  const { model, batch } = pass;
  const { commands, scratch, config, share } = model;
  const kept = wholeSelectionOf(model, batch, run);
  const { positions, sets, stride: keptStride } = kept;
  const stride = scoreStride(wholeLongest(batch));
  const values = scratch.take("pooled scores", "f32", [run.rows, sets, stride]);
  const rows = { firstRow: run.first, rows: run.rows };
  const held = copies.views.filter(({ owner }) => batch.holders[owner]);
  for (const { owner, rowTable = pass.inputs.computedTable } of held) {
    const isOwn = owner === share.index;
    const slice = { owner, longest: copies.longest };
    const given = isOwn ? scoresOf(model, run) : sliceScoresOf(model, run, slice);
    const longest = isOwn ? run.longest : copies.longest;
    const pages = order.pages[owner] ?? order.places;
    const ordered = { rowTable: copies.wholeTable, pages, maxPages: order.maxPages };
    const scores = { scores: given.scores, scoreStride: given.stride, lse, rowTable, longest };
    poolScores(commands, { ...rows, ...scores, shape: config, order: ordered, values, sets, stride });
  }
  keepBest(pass, run, { rowTable: copies.wholeTable, values, stride, kept, sparseLayers });
  for (const { owner } of held) {
    const dealt = owner === share.index
      ? selectionOf(model, run)
      : sliceSelectionOf(model, run, { owner, longest: copies.longest });
    const { places, maxPages } = order;
    const chosen = { ...rows, rowTable: copies.wholeTable, places, maxPages, positions, sets, stride: keptStride };
    dealPositions(commands, { ...chosen, slice: owner, dealt: dealt.positions, dealtStride: dealt.stride });
  }
}
