/**
 * The choice of positions in a select layer, for the runs of sparse rows of a batch: raw scores come out of the full
 * attention, are pooled under the merged log-sum-exp, and the best positions are kept for the sparse layers that follow.
 * Alone, the selection stays on the GPU; in a group each worker puts its best forward and keeps what it owns of the
 * chosen. Knows heads and budgets; knows nothing of who merges.
 */

import type { ScoreOutput, Selection } from "../../kernels/attention/decode_attention.ts";
import { poolScores } from "../../kernels/attention/pool_scores.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { NO_POSITION, setsOf } from "../../kernels/attention/row_table.ts";
import type { Scratch } from "../../kernels/scratch.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { topK } from "../../kernels/attention/top_k.ts";
import type { Batch, RowRun, SparseRow } from "./batch_plan.ts";
import type { Candidates, Exchange, ExchangePoint, PositionList } from "../exchange.ts";
import { ADAPTIVE_FLOOR } from "../layer_plan.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { PageShare } from "../page_map.ts";
import type { BatchTally } from "./read_counter.ts";
import { PAGE_TOKENS } from "../span.ts";

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
  return Math.ceil(Math.max(1, longest) / 64) * 64;
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

/** Values that this worker's best candidates of a run compete with, in the layout of its selection. */
function valuesOf(place: Place, run: SparseRun): Tensor {
  const { sets, stride } = selectionOf(place, run);
  return place.scratch.take(`candidate values (${run.sparse.heads})`, "f32", [run.rows, sets, stride]);
}

/** What `choose` takes besides a run. */
export interface ChoiceInput {
  /** f32 [rows of the batch, heads], over all workers. */
  readonly lse: Tensor;
  readonly rowTable: Tensor;
  readonly tally: BatchTally;
  /** Layers that will read the selection. */
  readonly readers: number;
}

/**
 * Chooses positions for a run from its scores and log-sum-exp. In a group these are what it puts forward: with what lies
 * elsewhere known, no list gets longer, for the coverage is only reached earlier.
 */
export function choose(place: Place, run: SparseRun, { tally, readers, ...rows }: ChoiceInput): void {
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
    keptValues: valuesOf(place, run),
    ...(run.sparse.coverage !== undefined && {
      adaptive: { floor: ADAPTIVE_FLOOR, tally: tally.counts, tallyAt: tally.at + run.first, weight: readers },
    }),
  });
}

interface Group extends Place {
  readonly exchange: Exchange;
  readonly share: PageShare;
}

/** The positions chosen by all workers together, adopted by this one. */
export interface SharedSelection {
  /** By worker: whether it holds anything that rows of the batch read in the sparse layers to come. */
  readonly holders: readonly boolean[];
}

/**
 * Puts what `choose` found on this worker forward, and adopts the group's choice.
 * @returns undefined when this worker's choice is the group's
 */
export function shareSelection(
  group: Group,
  batch: Batch,
  point: ExchangePoint,
  choice: Pick<ChoiceInput, "tally" | "readers">,
): { readonly read: Promise<void>; readonly chosen: Promise<SharedSelection> } | undefined {
  const read = Promise.withResolvers<void>();
  const choosing = group.exchange.select(point, async () => {
    const candidates = await readCandidates(group, batch);
    read.resolve();
    return candidates;
  });
  if (choosing === undefined) return undefined;
  const chosen = choosing.then((lists) => adopt(group, batch, { lists, ...choice }));
  // Whoever waits for the candidates hears of a failure through `chosen`.
  chosen.catch(() => read.resolve());
  return { read: read.promise, chosen };
}

/** The sparse rows of a run, in order. */
function rowsOf(batch: Batch, run: SparseRun): readonly SparseRow[] {
  return batch.sparse.filter(({ row }) => row >= run.first && row < run.first + run.rows);
}

async function readCandidates(group: Group, batch: Batch): Promise<Candidates> {
  const { commands, share: { map, index } } = group;
  commands.submit();
  const runs = batch.runs.filter(isSparse);
  const tensors = runs.flatMap((run) => [selectionOf(group, run).positions, valuesOf(group, run)]);
  const data = await commands.gpu.read(tensors.map((tensor, i) => {
    const { sets, stride } = selectionOf(group, runs[i >> 1] as SparseRun);
    return { tensor, byteLength: (runs[i >> 1]?.rows ?? 0) * sets * stride * 4 };
  }));
  const lists: PositionList[] = [];
  const rows: Candidates["rows"][number][] = [];
  for (const [i, run] of runs.entries()) {
    const positions = new Uint32Array(data[2 * i]?.buffer ?? new ArrayBuffer(0));
    const values = new Float32Array(data[2 * i + 1]?.buffer ?? new ArrayBuffer(0));
    const { sets, stride } = selectionOf(group, run);
    for (const [r, { sequence: { open }, position }] of rowsOf(batch, run).entries()) {
      const { budget, coverage } = open.sparse;
      const most = Math.min(budget, map.localRows(index, open.pageOffset, position + 1));
      rows.push({ sequence: open.sequence, position, budget, sets, ...(coverage !== undefined && { coverage }) });
      for (let set = 0; set < sets; set++) {
        const at = (r * sets + set) * stride;
        const padding = positions.subarray(at, at + most).indexOf(NO_POSITION);
        const count = padding < 0 ? most : padding;
        const local = positions.subarray(at, at + count);
        lists.push({
          positions: local.map((row) => map.globalRow(index, open.pageOffset, row)),
          values: values.slice(at, at + count),
        });
      }
    }
  }
  return { rows, lists };
}

/** Writes what this worker owns of the chosen positions where the sparse layers read them. */
function adopt(
  group: Group,
  batch: Batch,
  { lists, tally, readers }: Pick<ChoiceInput, "tally" | "readers"> & { readonly lists: readonly Uint32Array[] },
): SharedSelection {
  const { commands, share: { map, index } } = group;
  const holders = [...batch.denseHolders];
  let next = 0;
  for (const run of batch.runs.filter(isSparse)) {
    const { positions, sets, stride } = selectionOf(group, run);
    const table = new Uint32Array(run.rows * sets * stride).fill(NO_POSITION);
    for (const [r, { row, sequence: { open } }] of rowsOf(batch, run).entries()) {
      for (let set = 0; set < sets; set++) {
        let to = (r * sets + set) * stride;
        const chosen = lists[next++] ?? new Uint32Array(0);
        tally.add(row, chosen.length * readers);
        for (const position of chosen) {
          const page = Math.floor(position / PAGE_TOKENS);
          const owner = map.owner(open.pageOffset, page);
          holders[owner] = true;
          if (owner !== index) continue;
          table[to++] = map.pagesBefore(index, open.pageOffset, page) * PAGE_TOKENS + position % PAGE_TOKENS;
        }
      }
    }
    // Writes take effect before the next submit: what still reads the old selection must be under way.
    commands.submit();
    commands.gpu.write(positions, table);
  }
  return { holders };
}
