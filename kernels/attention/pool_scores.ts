/**
 * From raw attention scores to the values that positions compete with for a place in a row's selection.
 * Knows scores, log-sum-exps and sets; knows nothing of what is done with the selection.
 */

import { EMPTY_LSE, type HeadShape } from "./kv_pages.ts";
import { MASS_WGSL } from "./mass.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS, SET_SHAPE_CODE } from "./row_table.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { reads, writes } from "../wgsl.ts";

/** What `poolScores` reads and writes. */
export interface PoolScores {
  readonly shape: Pick<HeadShape, "heads" | "kvHeads">;
  /** First row of the call in lse and the row table. */
  readonly firstRow: number;
  readonly rows: number;
  /** f32 `[rows, heads, scoreStride]`: raw scaled logits by local row, as `decodeAttention` writes them. */
  readonly scores: Tensor;
  readonly scoreStride: number;
  /** f32 `[all rows, heads]`: natural log-sum-exp over everything that the row sees, on all workers. */
  readonly lse: Tensor;
  readonly rowTable: Tensor;
  /** At least the largest kvLimit among the rows; within both strides. */
  readonly longest: number;
  /** Written: f32 `[rows, sets, stride]`, at [0, kvLimit) of the sets that the row's shape has. */
  readonly values: Tensor;
  /** Given: the values of a slice go to the positions of its rows. @default to the rows' own places */
  readonly order?: PositionOrder;
  /** Sets a row has room for. */
  readonly sets: number;
  readonly stride: number;
}

/** Which positions a slice holds. */
export interface PositionOrder {
  /** u32 `[all rows, 8]`: slots of sequences in `pages`. */
  readonly rowTable: Tensor;
  /** u32 `[sequences, maxPages]`: by page of the slice, its number in the sequence. */
  readonly pages: Tensor;
  readonly maxPages: number;
}

/** The value of a position that the row cannot see. */
const HIDDEN_VALUE = EMPTY_LSE;

const THREADS = 256;

/**
 * Pools scores as the row's set shape says: `kv_head` and `all_heads` the mean probability over the query heads of the
 * set, with sinks and newest positions forced in (their values carry their probability too, see `mass.ts`); `query_head`
 * the raw score itself, of an adaptive row its probability, nothing forced.
 * @throws {GpuError} `invalid_shape`
 */
export function poolScores(commands: Commands, args: PoolScores): void {
  const { shape, firstRow, rows, scores, scoreStride, lse, rowTable, longest, values, sets, stride, order } = args;
  const { heads, kvHeads } = shape;
  const op = "pool_scores";
  expectTensor(op, scores, "f32", [rows, heads, scoreStride]);
  expectTensor(op, lse, "f32", [firstRow + rows, heads]);
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectTensor(op, values, "f32", [rows, sets, stride]);
  if (order !== undefined) expectTensor(op, order.rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  const isOrdered = order !== undefined;
  const name = `${op} ${heads}/${kvHeads}${isOrdered ? " ordered" : ""}`;
  commands.dispatch(commands.kernel(name, () => spec(heads, kvHeads, isOrdered)), {
    tensors: [scores, lse, rowTable, values, ...(isOrdered ? [order.rowTable, order.pages] : [])],
    params: { firstRow, scoreStride, sets, stride, maxPages: order?.maxPages ?? 0 },
    groups: [Math.ceil(longest / THREADS), sets, rows],
  });
}

function spec(heads: number, kvHeads: number, isOrdered: boolean): KernelSpec {
  return {
    bindings: [
      reads("scores", "array<f32>"),
      reads("lse", "array<f32>"),
      reads("rowTable", "array<vec4<u32>>"),
      writes("values", "array<f32>"),
      ...(isOrdered ? [reads("ordered", "array<vec4<u32>>"), reads("pages", "array<u32>")] : []),
    ],
    params: ["firstRow", "scoreStride", "sets", "stride", "maxPages"].map((name) => [name, "u32"]),
    source: source(heads, kvHeads, isOrdered),
  };
}

function source(heads: number, kvHeads: number, isOrdered: boolean): string {
  const page = "pages[ordered[2u * (params.firstRow + row)].x * params.maxPages + (localRow >> 6u)]";
  const place = isOrdered ? `${page} * 64u + (localRow & 63u)` : "localRow";
  return /* wgsl */ `
${ROW_TABLE_WGSL}${MASS_WGSL}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let localRow = group.x * ${THREADS}u + thread;
  let slot = group.y;
  let row = group.z;
  let entry = readRow(params.firstRow + row);
  if (localRow >= entry.kvLimit) { return; }
${headsWgsl(heads, kvHeads)}
  if (first >= ${heads}u) { return; }
  let to = (row * params.sets + slot) * params.stride + ${place};
  let forced = pooled && (localRow < entry.sinks || localRow + entry.recent >= entry.kvLimit);
  if (localRow < entry.kvFrom) {
    values[to] = ${HIDDEN_VALUE}f;
  } else if (pooled || entry.coverage > 0u) {
    var sum = 0.0;
    for (var head = first; head < first + count; head++) {
      let score = scores[(row * ${heads}u + head) * params.scoreStride + localRow];
      sum += exp(score - lse[(params.firstRow + row) * ${heads}u + head]);
    }
    let probability = sum / f32(count);
    values[to] = select(probability, forcedValue(probability), forced);
  } else {
    values[to] = scores[(row * ${heads}u + first) * params.scoreStride + localRow];
  }
}
`;
}

/** Declares which query heads the set pools: `count` from `first` on, or one as it is. */
function headsWgsl(heads: number, kvHeads: number): string {
  const group = heads / kvHeads;
  return /* wgsl */ `
  var first = slot * ${group}u;
  var count = ${group}u;
  var pooled = true;
  if (entry.setShape == ${SET_SHAPE_CODE.query_head}u) {
    first = slot;
    count = 1u;
    pooled = false;
  } else if (entry.setShape == ${SET_SHAPE_CODE.all_heads}u) {
    first = slot * ${heads}u;
    count = ${heads}u;
  }`;
}
