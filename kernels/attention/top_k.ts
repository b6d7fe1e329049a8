/**
 * The exact best k of a row of values, or of an adaptive row the fewest of the best that are heavy enough, as ascending
 * positions, without the host. Knows values, masses and sets; knows nothing of layers.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { ROW_WORDS } from "./row_table.ts";
import type { Scratch } from "../scratch.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { type TopKVariant, topKWgsl } from "./top_k_wgsl.ts";
import { reads, writes } from "../wgsl.ts";

/** What `topK` reads and writes. */
export interface TopK {
  readonly heads: number;
  readonly kvHeads: number;
  /** First row of the call in the row table. */
  readonly firstRow: number;
  readonly rows: number;
  readonly rowTable: Tensor;
  /** f32 `[rows, sets, stride]`: finite, compared at [0, kvLimit) of the sets that the row's shape has. */
  readonly values: Tensor;
  readonly stride: number;
  /** Sets a row has room for. */
  readonly sets: number;
  /**
   * Written: u32 `[rows, sets, keptStride]`, ascending, the first min(selected, kvLimit) of each set; what an adaptive
   * row does not keep of them is `NO_POSITION`.
   */
  readonly positions: Tensor;
  /** Written when given: f32 `[rows, sets, keptStride]`, the values at those positions. */
  readonly keptValues?: Tensor;
  /** At least the largest min(selected, kvLimit) among the rows. */
  readonly keptStride: number;
  /** Must be given when there are adaptive rows. */
  readonly adaptive?: AdaptiveSelect;
  /** Working memory for the best of chunks. */
  readonly scratch: Scratch;
  /**
   * How many values a workgroup reduces to their best first, where sets are much longer. Changes no result.
   * @default what suits the adapter
   */
  readonly chunk?: number;
}

/** What adaptive rows need besides; rows with a fixed budget are chosen for as without it. */
export interface AdaptiveSelect {
  /** Positions that a set has at least, as far as the row sees so many. */
  readonly floor: number;
  /** Added to: u32 `[tallied rows]`, positions kept of a row, over its sets, times `weight`. */
  readonly tally: Tensor;
  /** Of the first row of the call. */
  readonly tallyAt: number;
  readonly weight: number;
}

/** Values of a chunk on GPUs: as many as a workgroup's threads have in flight. */
const CHUNK = 8192;

/**
 * Selects the k = min(selected, kvLimit) largest values of each set of each row; of equal values the lower position wins.
 * Of an adaptive row, in the same order, the fewest that number at least `floor` and whose masses reach the row's
 * coverage: k of the visible ones at most. One workgroup each, any length; of long sets the best of chunks come first.
 * @throws {GpuError} `invalid_shape`
 */
export function topK(commands: Commands, args: TopK): void {
  check(args);
  const { software } = commands.gpu.info;
  const { stride, keptStride, adaptive, keptValues, chunk = software ? Infinity : CHUNK } = args;
  const last = { stage: "whole", keeps: keptValues !== undefined, adapts: adaptive !== undefined } as const;
  if (stride <= 2 * chunk || 2 * keptStride > chunk) {
    dispatch(commands, args, { ...last, list: args.stride, chunks: 1 });
    return;
  }
  const chunks = Math.ceil(stride / chunk);
  const list = chunks * keptStride;
  const { scratch, rows, sets } = args;
  const best = {
    positions: scratch.take("best positions of chunks", "u32", [rows, sets, list]),
    values: scratch.take("best values of chunks", "f32", [rows, sets, list]),
  };
  const ofChunks = { ...args, positions: best.positions, keptValues: best.values, chunk };
  dispatch(commands, ofChunks, { stage: "chunk", keeps: true, adapts: false, list: stride, kept: list, chunks });
  dispatch(commands, { ...args, values: best.values, chunk }, {
    ...last,
    stage: "rest",
    list,
    chunks,
    best: best.positions,
  });
}

function check(
  { firstRow, rows, rowTable, values, stride, sets, positions, keptValues, keptStride, adaptive }: TopK,
): void {
  const op = "top_k";
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectTensor(op, values, "f32", [rows, sets, stride]);
  expectTensor(op, positions, "u32", [rows, sets, keptStride]);
  if (keptValues !== undefined) expectTensor(op, keptValues, "f32", [rows, sets, keptStride]);
  if (adaptive !== undefined) expectTensor(op, adaptive.tally, "u32", [adaptive.tallyAt + rows]);
}

/** One stage of a selection. */
interface Stage extends Omit<TopKVariant, "threads"> {
  /** Distance of two sets' values, and of what is kept of them. */
  readonly list: number;
  /** @default that of the call */
  readonly kept?: number;
  readonly chunks: number;
  /** Positions that the values are of; undefined: their places. */
  readonly best?: Tensor;
}

function dispatch(
  commands: Commands,
  args: TopK,
  { list, kept = args.keptStride, chunks, best, ...stage }: Stage,
): void {
  const { heads, kvHeads, firstRow, rows, rowTable, values, sets, positions, keptValues, adaptive, chunk = 0 } = args;
  const { software, maxInvocations } = commands.gpu.info;
  const threads = 2 ** Math.floor(Math.log2(Math.min(maxInvocations, software ? 128 : 1024)));
  const variant: TopKVariant = { threads, ...stage };
  commands.dispatch(commands.kernel(`top_k ${Object.values(variant)}`, () => spec(variant)), {
    tensors: [
      ...[rowTable, values, positions],
      ...(stage.keeps && keptValues !== undefined ? [keptValues] : []),
      ...(stage.adapts && adaptive !== undefined ? [adaptive.tally] : []),
      ...(best === undefined ? [] : [best]),
    ],
    params: {
      ...{ firstRow, stride: list, sets, keptStride: kept, heads, kvHeads, chunk: Number.isFinite(chunk) ? chunk : 0 },
      floor: adaptive?.floor ?? 0,
      tallyAt: adaptive?.tallyAt ?? 0,
      weight: adaptive?.weight ?? 0,
    },
    groups: [sets, rows, stage.stage === "chunk" ? chunks : 1],
  });
}

function spec(variant: TopKVariant): KernelSpec {
  const { keeps, adapts, stage } = variant;
  const params = ["firstRow", "stride", "sets", "keptStride", "heads", "kvHeads", "chunk"];
  return {
    bindings: [
      reads("rowTable", "array<vec4<u32>>"),
      reads("values", "array<f32>"),
      writes("positions", "array<u32>"),
      ...(keeps ? [writes("keptValues", "array<f32>")] : []),
      ...(adapts ? [writes("tally", "array<atomic<u32>>")] : []),
      ...(stage === "rest" ? [reads("best", "array<u32>")] : []),
    ],
    params: [...params, ...(adapts ? ["floor", "tallyAt", "weight"] : [])].map((name) => [name, "u32"]),
    source: topKWgsl(variant),
  };
}
