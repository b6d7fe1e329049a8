/**
 * Merges attention states in a fixed order: those of the splits inside a GPU, and those of the workers of a group.
 * Knows states (o, lse); knows nothing of where they come from.
 */

import { cutName, type SplitCut, splitRangeWgsl } from "./split/split_cut.ts";
import { DIGIT_LANES, DIGITS_WGSL, storeDigits } from "../digits.ts";
import { GpuError } from "../errors.ts";
import { type AttentionState, EMPTY_LSE, type HeadShape, stateBindings } from "./kv_pages.ts";
import type { Commands, Kernel, KernelSpec, ParamField } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS } from "./row_table.ts";
import { expectRows, type ProductForm, ROW_FORM_WGSL, storeFour } from "../rows.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { type Tuning, tuningFor } from "./tuning.ts";
import { GROUP } from "../weights/format.ts";
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
  /** o `[rows, heads, headDim]`, lse f32 `[rows, heads]`. */
  readonly out: AttentionState;
  /** Of `out.o`, as in `Rows`; digits where `canMergeToDigits` says so. @default "f32" */
  readonly outForm?: ProductForm;
  /** @default what suits the adapter */
  readonly tuning?: Tuning;
}

/** What `mergeSplits` reads and writes: the splits of `rows` rows from `firstRow` on. */
export interface MergeSplits {
  readonly shape: Heads;
  readonly firstRow: number;
  readonly rows: number;
  /** o f32 `[splits, rows, heads, headDim]`, lse f32 `[splits, rows, heads]`. */
  readonly parts: AttentionState;
  readonly rowTable: Tensor;
  /** How each row was cut. */
  readonly cut: SplitCut;
  /** o `[all rows, heads, headDim]`, lse f32 `[all rows, heads]`. */
  readonly out: AttentionState;
  /** Of `out.o`, as in `Rows`; digits where `canMergeToDigits` says so. */
  readonly outForm: ProductForm;
  /** @default what suits the adapter */
  readonly tuning?: Tuning | undefined;
}

/** Most threads of a workgroup on a GPU. On a CPU one team is enough: more of them only wait for each other. */
const THREADS = 128;
/** States that a thread has in flight. */
const AT_ONCE = 4;
/** Most lanes of a workgroup: more states are read at the same time, by more workgroups. On a CPU those only cost. */
const MAX_LANES = { software: 64, hardware: 8 } as const;

/**
 * Merges `count` states of every row in the order of their index. Empty states change nothing; of empties only, the
 * result is empty.
 * @throws {GpuError} `invalid_shape`
 */
export function mergeStates(commands: Commands, args: MergeStates): void {
  const { shape, rows, count, parts, out, outForm = "f32", tuning } = args;
  const op = "merge_states";
  expectTensor(op, parts.o, "f32", [count, rows, shape.heads, shape.headDim]);
  expectTensor(op, parts.lse, "f32", [count, rows, shape.heads]);
  expectOutputs(op, shape, { out, outForm, rows });
  const variant = variantOf(commands, shape, { tuning, outForm });
  commands.dispatch(kernelOf(commands, variant), {
    tensors: [parts.o, parts.lse, out.o, out.lse],
    params: { rows, count },
    groups: [shape.heads * variant.pieces, rows, 1],
  });
}

/** Whether each group of digits lies in one head; the adapter must have subgroups of at least eight. */
export function canMergeToDigits({ headDim }: Pick<Heads, "headDim">): boolean {
  return headDim % GROUP === 0;
}

/**
 * Merges the live splits of every row. Rows with one split or none are left alone, as the split itself wrote their state; as digits
 * all are written here.
 * @throws {GpuError} `invalid_shape`
 */
export function mergeSplits(commands: Commands, args: MergeSplits): void {
  const { shape, firstRow, rows, parts, rowTable, cut, out, outForm, tuning } = args;
  const op = "merge_splits";
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectOutputs(op, shape, { out, outForm, rows: firstRow + rows });
  const variant = variantOf(commands, shape, { tuning, cut, outForm });
  commands.dispatch(kernelOf(commands, variant), {
    tensors: [parts.o, parts.lse, out.o, out.lse, rowTable],
    params: { rows, firstRow },
    groups: [shape.heads * variant.pieces, rows, 1],
  });
}

function expectOutputs(
  op: string,
  shape: Heads,
  { out, outForm, rows }: Pick<MergeSplits, "out" | "outForm" | "rows">,
): void {
  const { heads, headDim } = shape;
  if (outForm === "digits" && !canMergeToDigits(shape)) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch ${op}: digits need heads of a multiple of ${GROUP} dimensions, given ${headDim}`,
    );
  }
  expectRows(op, { tensor: out.o, form: outForm }, { rows, cols: heads * headDim });
  expectTensor(op, out.lse, "f32", [rows, heads]);
}

interface Variant {
  readonly heads: number;
  /** Of a workgroup, four dimensions each, and how many workgroups share a head. */
  readonly lanes: number;
  readonly pieces: number;
  /** Of so many lanes each, in a workgroup. */
  readonly teams: number;
  /** Undefined: all states given; else the live splits of a row. */
  readonly cut: SplitCut | undefined;
  readonly outForm: ProductForm;
}

function variantOf(
  { gpu: { info } }: Commands,
  { heads, headDim }: Heads,
  { tuning, cut, outForm = "f32" }: {
    readonly tuning: Tuning | undefined;
    readonly cut?: SplitCut;
    readonly outForm?: ProductForm;
  },
): Variant {
  const chosen = tuningFor(info, tuning);
  const all = headDim / 4;
  let lanes = Math.min(all, MAX_LANES[chosen]);
  while (all % lanes !== 0) lanes--;
  const teams = chosen === "software" ? 1 : Math.floor(THREADS / lanes);
  return { heads, lanes, pieces: all / lanes, teams, cut, outForm };
}

function kernelOf(commands: Commands, variant: Variant): Kernel {
  const { heads, lanes, pieces, teams, cut, outForm } = variant;
  const name = `merge_states ${heads}x${pieces}x${lanes} ${teams} ${
    cut === undefined ? "all" : cutName(cut)
  } ${outForm}`;
  return commands.kernel(name, () => mergeSpec(variant));
}

function mergeSpec(variant: Variant): KernelSpec {
  const ofSplits = variant.cut !== undefined;
  const { outForm } = variant;
  const params: readonly ParamField[] = (ofSplits ? ["rows", "firstRow"] : ["rows", "count"])
    .map((name) => [name, "u32"]);
  return {
    ...(outForm === "digits" && { needs: ["subgroups"] }),
    bindings: [
      reads("partsO", "array<vec4<f32>>"),
      reads("partsLse", "array<f32>"),
      ...(outForm === "digits"
        ? [writes("outO", "array<u32>"), writes("outLse", "array<f32>")]
        : stateBindings(outForm)),
      ...(ofSplits ? [reads("rowTable", "array<vec4<u32>>")] : []),
    ],
    params,
    source: mergeSource(variant),
  };
}

/**
 * Teams of lanes take every n-th state, each team with a maximum of its own, so that no state is waited for before another
 * is read; then the teams' sums are merged in order.
 */
function mergeSource(variant: Variant): string {
  const { lanes, pieces, teams, cut, outForm } = variant;
  const isDigits = outForm === "digits";
  const live = cut === undefined ? "params.count" : "splitRange(readRow(outRow)).live";
  return /* wgsl */ `
${isDigits ? DIGITS_WGSL : outForm === "f32" ? "" : ROW_FORM_WGSL}
${cut === undefined ? "" : ROW_TABLE_WGSL + splitRangeWgsl(cut)}
var<workgroup> sums: array<vec4<f32>, ${teams * lanes}>;
// Of each team: its maximum, and the sum of its weights.
var<workgroup> teams: array<vec2<f32>, ${teams}>;

@compute @workgroup_size(${teams * lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / ${pieces}u;
  let row = group.y;
  let outRow = row${cut === undefined ? "" : " + params.firstRow"};
  let live = ${live};
  ${cut === undefined || isDigits ? "" : "if (live < 2u) { return; }"}
  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
  let vec = group.x % ${pieces}u * ${lanes}u + lane;
  var top = ${EMPTY_LSE}f;
  var sum = vec4<f32>();
  var weight = 0.0;
  for (var part = team; part < live; part += ${AT_ONCE * teams}u) {
${addWgsl(variant)}
  }
  sums[thread] = sum;
  if (lane == 0u) { teams[team] = vec2<f32>(top, weight); }
  workgroupBarrier();
${mergeTeamsWgsl(variant)}
${storeWgsl(variant)}
}
`;
}

/** The sums of all teams, each with a maximum of its own, become one. */
function mergeTeamsWgsl({ lanes, teams, outForm }: Variant): string {
  const add = (i: number) => /* wgsl */ `
  let factor${i} = exp(teams[${i}].x - top);
  sum += factor${i} * sums[${i * lanes}u + lane];
  weight += factor${i} * teams[${i}].y;`;
  const stays = outForm === "digits";
  return /* wgsl */ `
  ${stays ? "// All threads stay: those of a group find its largest value together." : "if (team > 0u) { return; }"}
  ${unroll(teams - 1, (i) => `top = max(top, teams[${i + 1}].x);`)}
  sum = vec4<f32>();
  weight = 0.0;
  ${unroll(teams, add)}`;
}

function storeWgsl(variant: Variant): string {
  const isFirst = variant.outForm === "digits" ? "team == 0u && vec == 0u" : "vec == 0u";
  return /* wgsl */ `
  let to = outRow * ${variant.heads}u + head;
  ${storeOutputs(variant)}
  if (${isFirst}) { outLse[to] = select(${EMPTY_LSE}f, top + log(max(weight, 1e-30)), weight > 0.0); }`;
}

function storeOutputs({ heads, lanes, pieces, outForm }: Variant): string {
  const value = "select(vec4<f32>(), sum / max(weight, 1e-30), weight > 0.0)";
  const vectors = lanes * pieces;
  if (outForm !== "digits") return storeFour(outForm, "outO", { value, at: `to * ${vectors}u + vec` });
  const place = {
    row: "outRow",
    group: `(head * ${vectors}u + vec) / ${DIGIT_LANES}u`,
    groups: `${heads * vectors / DIGIT_LANES}u`,
  };
  return storeDigits("outO", { value, lane: `vec % ${DIGIT_LANES}u`, place, exists: "team == 0u" });
}

/** The states that a thread has in flight, added to its sum. */
function addWgsl({ heads, lanes, pieces, teams }: Variant): string {
  const load = (u: number) => /* wgsl */ `
      let at${u} = (min(part + ${u * teams}u, live - 1u) * params.rows + row) * ${heads}u + head;
      let lse${u} = select(${EMPTY_LSE}f, partsLse[at${u}], part + ${u * teams}u < live);
      let o${u} = partsO[at${u} * ${lanes * pieces}u + vec];`;
  // The floor marks an empty state; when all are empty its own exponential would be 1.
  const add = (u: number) => /* wgsl */ `
      let w${u} = select(exp(lse${u} - highest), 0.0, lse${u} <= ${EMPTY_LSE}f);
      sum += w${u} * o${u};
      weight += w${u};`;
  const highest = Array.from({ length: AT_ONCE }, (_, u) => `lse${u}`).reduce((a, b) => `max(${a}, ${b})`, "top");
  return /* wgsl */ `${unroll(AT_ONCE, load)}
      let highest = ${highest};
      let fade = exp(top - highest);
      sum *= fade;
      weight *= fade;
      top = highest;
${unroll(AT_ONCE, add)}`;
}
