/**
 * Merges attention states in a fixed order: those of the splits inside a GPU, and those of the workers of a group.
 * Knows states (o, lse); knows nothing of where they come from.
 */

import { splitRangeWgsl } from "./split/split_kernel.ts";
import { type AttentionState, EMPTY_LSE, type HeadShape } from "./kv_pages.ts";
import type { Commands, Kernel, KernelSpec, ParamField } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS } from "./row_table.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { reads, unroll, writes } from "../wgsl.ts";

type Heads = Pick<HeadShape, "heads" | "headDim">;

/** What `mergeStates` reads and writes. */
export interface MergeStates {
  readonly shape: Heads;
  readonly rows: number;
  /** Number of states to merge for every row; 0 gives empty states. */
  readonly count: number;
  /** o f32 `[count, rows, heads, headDim]`, lse f32 `[count, rows, heads]`. */
  readonly parts: AttentionState;
  /** o f32 `[rows, heads, headDim]`, lse f32 `[rows, heads]`. */
  readonly out: AttentionState;
}

/** What `mergeSplits` reads and writes: the splits of `rows` rows from `firstRow` on. */
export interface MergeSplits {
  readonly shape: Heads;
  readonly firstRow: number;
  readonly rows: number;
  /** o f32 `[splits, rows, heads, headDim]`, lse f32 `[splits, rows, heads]`. */
  readonly parts: AttentionState;
  readonly rowTable: Tensor;
  /** Whether the splits cut a selection instead of the visible rows. */
  readonly gathered: boolean;
  /** o f32 `[all rows, heads, headDim]`, lse f32 `[all rows, heads]`. */
  readonly out: AttentionState;
}

/** Threads of one (row, head). */
const THREADS = 128;
/** States that a thread has in flight. */
const AT_ONCE = 4;

/**
 * Merges `count` states of every row in the order of their index. Empty states change nothing; of empties only, the
 * result is empty.
 * @throws {GpuError} `invalid_shape`
 */
export function mergeStates(commands: Commands, { shape, rows, count, parts, out }: MergeStates): void {
  const op = "merge_states";
  expectTensor(op, parts.o, "f32", [count, rows, shape.heads, shape.headDim]);
  expectTensor(op, parts.lse, "f32", [count, rows, shape.heads]);
  expectTensor(op, out.o, "f32", [rows, shape.heads, shape.headDim]);
  expectTensor(op, out.lse, "f32", [rows, shape.heads]);
  commands.dispatch(kernelOf(commands, shape, "all"), {
    tensors: [parts.o, parts.lse, out.o, out.lse],
    params: { rows, count },
    groups: [shape.heads, rows, 1],
  });
}

/**
 * Merges the live splits of every row. Rows with one split or none are left alone: the split itself wrote their state.
 * @throws {GpuError} `invalid_shape`
 */
export function mergeSplits(commands: Commands, args: MergeSplits): void {
  const { shape, firstRow, rows, parts, rowTable, gathered, out } = args;
  const op = "merge_splits";
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectTensor(op, out.o, "f32", [firstRow + rows, shape.heads, shape.headDim]);
  expectTensor(op, out.lse, "f32", [firstRow + rows, shape.heads]);
  commands.dispatch(kernelOf(commands, shape, gathered ? "gathered" : "dense"), {
    tensors: [parts.o, parts.lse, out.o, out.lse, rowTable],
    params: { rows, firstRow },
    groups: [shape.heads, rows, 1],
  });
}

/** All states given; or the live splits of a row that attends densely, or to a selection. */
type Counted = "all" | "dense" | "gathered";

function kernelOf(commands: Commands, { heads, headDim }: Heads, counted: Counted): Kernel {
  return commands.kernel(`merge_states ${counted} ${heads}x${headDim}`, () => mergeSpec(heads, headDim, counted));
}

function mergeSpec(heads: number, headDim: number, counted: Counted): KernelSpec {
  const ofSplits = counted !== "all";
  const params: readonly ParamField[] = [["rows", "u32"], ofSplits ? ["firstRow", "u32"] : ["count", "u32"]];
  return {
    bindings: [
      reads("partsO", "array<vec4<f32>>"),
      reads("partsLse", "array<f32>"),
      writes("outO", "array<vec4<f32>>"),
      writes("outLse", "array<f32>"),
      ...(ofSplits ? [reads("rowTable", "array<vec4<u32>>")] : []),
    ],
    params,
    source: mergeSource(heads, headDim / 4, counted),
  };
}

function mergeSource(heads: number, lanes: number, counted: Counted): string {
  const teams = Math.floor(THREADS / lanes);
  const live = counted === "all" ? "params.count" : "splitRange(readRow(outRow)).live";
  return /* wgsl */ `
${counted === "all" ? "" : ROW_TABLE_WGSL + splitRangeWgsl(counted === "gathered")}
var<workgroup> maxima: array<f32, ${THREADS}>;
var<workgroup> sums: array<vec4<f32>, ${teams * lanes}>;
var<workgroup> weights: array<f32, ${teams}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x;
  let row = group.y;
  let outRow = row${counted === "all" ? "" : " + params.firstRow"};
  let live = ${live};
  ${counted === "all" ? "" : "if (live < 2u) { return; }"}
${topWgsl(heads)}  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
  var sum = vec4<f32>();
  var weight = 0.0;
  if (team < ${teams}u) {
    for (var part = team; part < live; part += ${AT_ONCE * teams}u) {
${unroll(AT_ONCE, (u) => addWgsl(u, { heads, lanes, teams }))}
    }
    sums[thread] = sum;
    if (lane == 0u) { weights[team] = weight; }
  }
  workgroupBarrier();
  if (team > 0u) { return; }
${unroll(teams - 1, (i) => `  sum += sums[${(i + 1) * lanes}u + lane]; weight += weights[${i + 1}];`)}
  let to = outRow * ${heads}u + head;
  outO[to * ${lanes}u + lane] = select(vec4<f32>(), sum / max(weight, 1e-30), weight > 0.0);
  if (lane == 0u) { outLse[to] = select(${EMPTY_LSE}f, top + log(max(weight, 1e-30)), weight > 0.0); }
}
`;
}

/** The largest log-sum-exp of the live states, found by all threads together. */
function topWgsl(heads: number): string {
  return /* wgsl */ `
  var top = ${EMPTY_LSE}f;
  for (var part = thread; part < live; part += ${THREADS}u) {
    top = max(top, partsLse[(part * params.rows + row) * ${heads}u + head]);
  }
  maxima[thread] = top;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half >>= 1u) {
    if (thread < half) { maxima[thread] = max(maxima[thread], maxima[thread + half]); }
    workgroupBarrier();
  }
  top = maxima[0];
`;
}

/** One of the states that a thread has in flight. */
function addWgsl(
  u: number,
  { heads, lanes, teams }: { readonly heads: number; readonly lanes: number; readonly teams: number },
): string {
  return /* wgsl */ `
      let part${u} = part + ${u * teams}u;
      let at${u} = (min(part${u}, live - 1u) * params.rows + row) * ${heads}u + head;
      let lse${u} = partsLse[at${u}];
      let o${u} = partsO[at${u} * ${lanes}u + lane];
      // The floor marks an empty state; when all are empty its own exponential would be 1.
      let w${u} = select(exp(lse${u} - top), 0.0, part${u} >= live || lse${u} <= ${EMPTY_LSE}f);
      sum += w${u} * o${u};
      weight += w${u};`;
}
