/**
 * The choice of positions in a select layer, for the sparse rows of a batch: raw scores come out of the full attention,
 * are pooled under the merged log-sum-exp, and the best positions are kept for the sparse layers that follow. Alone, the
 * selection stays on the GPU; in a group each worker offers its best and keeps what it owns of the chosen.
 */

import { poolScores } from "../../kernels/attention/pool_scores.ts";
import { NO_POSITION } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { sparseLayersAfter } from "../layer_plan.ts";
import { PAGE_TOKENS } from "../span.ts";
import { readCandidates } from "./candidates.ts";
import { keepBest } from "./keep_best.ts";
import type { RowStates } from "./row_states.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { adoptReplicated } from "./replication.ts";
import {
  candidateValuesOf,
  isSparse,
  rowsOf,
  scoresOf,
  selectionOf,
  sliceSelectionOf,
  type SparseRun,
} from "./selection_buffers.ts";
import { chooseWhole } from "./whole_selection.ts";

/** A choice that the group has yet to make. */
export interface PendingSelection {
  /** Waits for the group's choice, and writes what this worker owns of it where the sparse layers read it. */
  adopt(): Promise<void>;
}

/**
 * Chooses positions for the sparse rows of a layer, if it is a select layer.
 * @param state of the layer over all workers
 */
export function chooseFrom(pass: Pass, layer: PassLayer, { lse }: RowStates): void {
  const { model, batch } = pass;
  if (!isChoosing(pass, layer)) return;
  const sparseLayers = sparseLayersAfter(model.roles ?? [], layer.index);
  const { keyCopies: copies } = pass;
  for (const run of batch.runs.filter(isSparse)) {
    if (copies?.order === undefined) choose(pass, run, { lse, sparseLayers });
    else chooseWhole(pass, run, { copies, order: copies.order, lse, sparseLayers });
  }
  pass.report.take(layer.index, batch);
}

/** Whether sparse rows of a batch choose positions in a layer. */
export function isChoosing({ batch }: Pass, { role }: PassLayer): boolean {
  return role === "select" && batch.sparse.length > 0;
}

/**
 * Offers to the group what was chosen in a layer.
 * @returns undefined when there is nothing to wait for: no choice is due, or this worker's own is the group's
 */
export async function offerSelection(pass: Pass, layer: PassLayer): Promise<PendingSelection | undefined> {
  const { model, batch } = pass;
  if (!isChoosing(pass, layer) || pass.keyCopies !== undefined) return undefined;
  const sparseLayers = sparseLayersAfter(model.roles ?? [], layer.index);
  await pass.arrive();
  const read = Promise.withResolvers<void>();
  const choosing = model.exchange.select(pass.pointAt(layer), async () => {
    const candidates = await readCandidates(pass);
    read.resolve();
    return candidates;
  });
  if (choosing === undefined) return undefined;
  // `adopt` reports the failure.
  choosing.catch(() => read.resolve());
  // Once the candidates are read the queue is empty: the rest of the layer overlaps with the router's merge.
  await read.promise;
  return {
    adopt: async () => {
      model.commands.submit();
      const lists = await choosing;
      if (batch.replicated) await adoptReplicated(pass, layer, lists);
      else adopt(pass, lists, sparseLayers);
    },
  };
}

/**
 * Chooses positions for a run from its scores and log-sum-exp. In a group these are its candidates: with what lies
 * elsewhere known, no list gets longer, for the coverage is only reached earlier.
 * @param input.lse f32 [rows of the batch, heads], over all workers
 * @param input.sparseLayers layers that will read the selection
 */
function choose(
  pass: Pass,
  run: SparseRun,
  { lse, sparseLayers }: { readonly lse: Tensor; readonly sparseLayers: number },
): void {
  const { model, inputs: { rowTable } } = pass;
  const { commands, scratch, config } = model;
  const { scores, stride } = scoresOf(model, run);
  const kept = selectionOf(model, run);
  const { sets } = kept;
  const values = scratch.take("pooled scores", "f32", [run.rows, sets, stride]);
  poolScores(commands, {
    ...{ firstRow: run.first, rows: run.rows, rowTable },
    shape: config,
    scores,
    scoreStride: stride,
    lse,
    longest: run.longest,
    values,
    sets,
    stride,
  });
  keepBest(pass, run, { rowTable, values, stride, kept, keptValues: candidateValuesOf(model, run), sparseLayers });
}

/** Writes what is chosen of this worker's slice, and of those that it has copies of, where the sparse layers read it. */
function adopt(pass: Pass, lists: readonly Uint32Array[], sparseLayers: number): void {
  const { model, batch, counter } = pass;
  const holders = [...batch.denseHolders];
  let next = 0;
  for (const run of batch.runs.filter(isSparse)) {
    const { sets } = selectionOf(model, run);
    const tables = tablesOf(pass, run);
    for (const [r, { row, sequence: { open: { pageOffset } } }] of rowsOf(batch, run).entries()) {
      for (let set = 0; set < sets; set++) {
        const chosen = lists[next++] ?? new Uint32Array(0);
        counter.add(row, chosen.length * sparseLayers);
        placePositions(pass, chosen, { pageOffset, tables, holders, list: r * sets + set });
      }
    }
    for (const table of tables) if (table !== undefined) model.commands.write(table.positions, table.rows);
  }
  pass.setSelectionHolders(holders);
}

/** The lists of a run in one worker's slice, before they are on the GPU. */
interface SliceTable {
  readonly positions: Tensor;
  readonly stride: number;
  readonly rows: Uint32Array<ArrayBuffer>;
}

/** By worker; undefined of slices that the sparse layers do not read here. */
function tablesOf({ model, rowCopies }: Pass, run: SparseRun): readonly (SliceTable | undefined)[] {
  const { share: { map, index } } = model;
  return Array.from({ length: map.workers }, (_, owner) => {
    if (owner !== index && rowCopies?.views === undefined) return undefined;
    const { positions, sets, stride } = owner === index
      ? selectionOf(model, run)
      : sliceSelectionOf(model, run, { owner, longest: rowCopies?.longest ?? 0 });
    return { positions, stride, rows: new Uint32Array(run.rows * sets * stride).fill(NO_POSITION) };
  });
}

/** Writes the local rows of a list into the tables of the slices that hold them, and marks these. */
function placePositions(
  { model: { share: { map } } }: Pass,
  chosen: Uint32Array,
  { pageOffset, tables, holders, list }: {
    readonly pageOffset: number;
    readonly tables: readonly (SliceTable | undefined)[];
    readonly holders: boolean[];
    readonly list: number;
  },
): void {
  const ends = tables.map((table) => list * (table?.stride ?? 0));
  for (const position of chosen) {
    const page = Math.floor(position / PAGE_TOKENS);
    const owner = map.owner(pageOffset, page);
    holders[owner] = true;
    const table = tables[owner];
    if (table === undefined) continue;
    const end = ends[owner] ?? 0;
    table.rows[end] = map.pagesBefore(owner, pageOffset, page) * PAGE_TOKENS + position % PAGE_TOKENS;
    ends[owner] = end + 1;
  }
}
