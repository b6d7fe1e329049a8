/**
 * The exact best k of a row of values, or of an adaptive row the fewest of the best that are heavy enough, as ascending
 * positions: a radix select in one workgroup, no host, no sorting. Knows values, masses and sets; knows nothing of layers.
 */

import { MASS_WGSL } from "./mass.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS, SET_SHAPE_CODE } from "./row_table.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { cutWgsl, goalWgsl } from "./top_k_adaptive.ts";
import { reads, unroll, writes } from "../wgsl.ts";

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

/** Bits of the key that each pass decides, from the top. */
const DIGITS = [{ shift: 21, bits: 11 }, { shift: 10, bits: 11 }, { shift: 0, bits: 10 }] as const;
const BINS = 2048;
/** Two bitmaps take the place of the bins. */
const BITMAP_WORDS = BINS / 2;
/** Values that a thread has in flight. */
const AT_ONCE = 8;
/** Threads whose counts are added up first in a scan. */
const SCAN_GROUPS = 16;

/**
 * Selects the k = min(selected, kvLimit) largest values of each set of each row; of equal values the lower position wins.
 * Of an adaptive row, in the same order, the fewest that number at least `floor` and whose masses reach the row's
 * coverage: k of the visible ones at most. One workgroup each, any length.
 * @throws {GpuError} `invalid_shape`
 */
export function topK(commands: Commands, args: TopK): void {
  const { heads, kvHeads, firstRow, rows, rowTable, values, stride, sets, positions, keptValues, keptStride } = args;
  const { adaptive } = args;
  const op = "top_k";
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectTensor(op, values, "f32", [rows, sets, stride]);
  expectTensor(op, positions, "u32", [rows, sets, keptStride]);
  if (keptValues !== undefined) expectTensor(op, keptValues, "f32", [rows, sets, keptStride]);
  if (adaptive !== undefined) expectTensor(op, adaptive.tally, "u32", [adaptive.tallyAt + rows]);
  const { software, maxInvocations } = commands.gpu.info;
  const threads = 2 ** Math.floor(Math.log2(Math.min(maxInvocations, software ? 128 : 1024)));
  const variant: Variant = { threads, keeps: keptValues !== undefined, adapts: adaptive !== undefined };
  const kernel = commands.kernel(`${op} ${Object.values(variant)}`, () => spec(variant));
  commands.dispatch(kernel, {
    tensors: [
      ...[rowTable, values, positions],
      ...(keptValues === undefined ? [] : [keptValues]),
      ...(adaptive === undefined ? [] : [adaptive.tally]),
    ],
    params: {
      ...{ firstRow, stride, sets, keptStride, heads, kvHeads },
      floor: adaptive?.floor ?? 0,
      tallyAt: adaptive?.tallyAt ?? 0,
      weight: adaptive?.weight ?? 0,
    },
    groups: [sets, rows, 1],
  });
}

/** What distinguishes variants of the kernel. */
interface Variant {
  readonly threads: number;
  /** Whether values are kept beside positions. */
  readonly keeps: boolean;
  /** Whether some rows may be adaptive. */
  readonly adapts: boolean;
}

function spec(variant: Variant): KernelSpec {
  const { keeps, adapts } = variant;
  const params = ["firstRow", "stride", "sets", "keptStride", "heads", "kvHeads"];
  return {
    bindings: [
      reads("rowTable", "array<vec4<u32>>"),
      reads("values", "array<f32>"),
      writes("positions", "array<u32>"),
      ...(keeps ? [writes("keptValues", "array<f32>")] : []),
      ...(adapts ? [writes("tally", "array<atomic<u32>>")] : []),
    ],
    params: [...params, ...(adapts ? ["floor", "tallyAt", "weight"] : [])].map((name) => [name, "u32"]),
    source: source(variant),
  };
}

function source({ threads, keeps, adapts }: Variant): string {
  return /* wgsl */ `
${ROW_TABLE_WGSL}${MASS_WGSL}
var<workgroup> bins: array<atomic<u32>, ${BINS}>;
${adapts ? `var<workgroup> masses: array<atomic<u32>, ${BINS}>;` : ""}
var<workgroup> cells: array<vec2<u32>, ${threads}>;
var<workgroup> groups: array<vec2<u32>, ${SCAN_GROUPS}>;
// The digit that holds the last value kept, and how many values, and what mass, lie above it.
var<workgroup> found: vec3<u32>;

// Unsigned order of keys is the order of values; both zeros are one value.
fn keyOf(value: f32) -> u32 {
  let bits = select(bitcast<u32>(value), 0u, bitcast<u32>(value) == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
// Whether so many values of such a mass are enough. The goal: at most how many, at least how many, what mass.
fn enough(have: vec2<u32>, goal: vec3<u32>) -> bool {
  return have.x >= goal.x || (have.x >= goal.y && have.y >= goal.z);
}
fn inBin(bin: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&bins[bin]), ${adapts ? "atomicLoad(&masses[bin])" : "0u"});
}
// A word of both bitmaps.
fn marked(word: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&bins[word]), atomicLoad(&bins[${BITMAP_WORDS}u + word]));
}
${scanWgsl(threads)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let entry = readRow(params.firstRow + group.y);
  let n = entry.kvLimit;
  let k = min(entry.selected, n);
  var sets = params.kvHeads;
  if (entry.setShape == ${SET_SHAPE_CODE.query_head}u) { sets = params.heads; }
  if (entry.setShape == ${SET_SHAPE_CODE.all_heads}u) { sets = 1u; }
  if (group.x >= sets || k == 0u) { return; }
  let base = (group.y * params.sets + group.x) * params.stride;
  let to = (group.y * params.sets + group.x) * params.keptStride;
  if (k == n && entry.coverage == 0u) {
    for (var i = thread; i < n; i += ${threads}u) { ${keep(keeps, "i", "i", "values[base + i]")} }
    return;
  }
  var threshold = 0u;
  var goal = vec3<u32>(k, k, 0u);
${adapts ? goalWgsl(threads) : ""}
${DIGITS.map((digit) => digitWgsl({ threads, adapts }, digit)).join("")}
  var wanted = goal.x;
${adapts ? cutWgsl(threads) : ""}
${keepWgsl(threads, keeps)}
}
`;
}

/** Sums of what lies before each thread, in two levels: three barriers instead of two for each doubling. */
function scanWgsl(threads: number): string {
  const size = threads / SCAN_GROUPS;
  return /* wgsl */ `
fn before(thread: u32, own: vec2<u32>) -> vec2<u32> {
  cells[thread] = own;
  workgroupBarrier();
  if (thread < ${SCAN_GROUPS}u) {
    var sum = vec2<u32>();
    for (var i = 0u; i < ${size}u; i++) { sum += cells[thread * ${size}u + i]; }
    groups[thread] = sum;
  }
  workgroupBarrier();
  let mine = thread / ${size}u;
  var sum = vec2<u32>();
  for (var i = 0u; i < mine; i++) { sum += groups[i]; }
  for (var i = mine * ${size}u; i < thread; i++) { sum += cells[i]; }
  workgroupBarrier();
  return sum;
}
`;
}

/** One pass: counts a digit of the keys that agree so far, and narrows the threshold to that of the last value kept. */
function digitWgsl(
  { threads, adapts }: Pick<Variant, "threads" | "adapts">,
  { shift, bits }: (typeof DIGITS)[number],
): string {
  const above = shift + bits;
  const agrees = above === 32 ? "true" : `key >> ${above}u == threshold >> ${above}u`;
  const own = BINS / threads;
  const count = (u: number) => /* wgsl */ `
    {
      let key = keyOf(value${u});
      if (i + ${u * threads}u < n && ${agrees}) {
        let bin = (key >> ${shift}u) & ${2 ** bits - 1}u;
        atomicAdd(&bins[bin], 1u);
        ${adapts ? `if (goal.z > 0u) { atomicAdd(&masses[bin], massOf(value${u})); }` : ""}
      }
    }`;
  return /* wgsl */ `
  for (var i = thread; i < ${BINS}u; i += ${threads}u) {
    atomicStore(&bins[i], 0u);
    ${adapts ? "atomicStore(&masses[i], 0u);" : ""}
  }
  workgroupBarrier();
  for (var i = thread; i < n; i += ${AT_ONCE * threads}u) {
    ${unroll(AT_ONCE, (u) => `let value${u} = values[base + min(i + ${u * threads}u, n - 1u)];`)}
    ${unroll(AT_ONCE, count)}
  }
  workgroupBarrier();
  {
    var sum = vec2<u32>();
    for (var i = 0u; i < ${own}u; i++) { sum += inBin(${BINS - 1}u - thread * ${own}u - i); }
    var higher = before(thread, sum);
    if (!enough(higher, goal) && enough(higher + sum, goal)) {
      var bin = ${BINS - 1}u - thread * ${own}u;
      var size = inBin(bin);
      for (; !enough(higher + size, goal); size = inBin(bin)) {
        higher += size;
        bin--;
      }
      found = vec3<u32>(bin, higher);
    }
  }
  workgroupBarrier();
  threshold |= found.x << ${shift}u;
  goal -= min(goal, found.yyz);
  workgroupBarrier();
`;
}

/**
 * Neighbouring threads read neighbouring values and mark in two bitmaps those above the threshold and those equal to it; then
 * each thread keeps what its own words mark. One tile of positions after the other, in ascending order.
 */
function keepWgsl(threads: number, keeps: boolean): string {
  const own = BITMAP_WORDS / threads;
  const mark = (u: number) => /* wgsl */ `
      if (i + ${u * threads}u < end) {
        let key = keyOf(value${u});
        let bit = i + ${u * threads}u - tile;
        let map = select(0u, ${BITMAP_WORDS}u, key == threshold);
        if (key >= threshold) { atomicOr(&bins[map + bit / 32u], 1u << (bit % 32u)); }
      }`;
  return /* wgsl */ `
  var marksBefore = vec2<u32>();
  for (var tile = 0u; tile < n; tile += ${BITMAP_WORDS * 32}u) {
    let end = min(tile + ${BITMAP_WORDS * 32}u, n);
    for (var i = thread; i < ${2 * BITMAP_WORDS}u; i += ${threads}u) { atomicStore(&bins[i], 0u); }
    workgroupBarrier();
    for (var i = tile + thread; i < end; i += ${AT_ONCE * threads}u) {
      ${unroll(AT_ONCE, (u) => `let value${u} = values[base + min(i + ${u * threads}u, n - 1u)];`)}
      ${unroll(AT_ONCE, mark)}
    }
    workgroupBarrier();
    var own = vec2<u32>();
    for (var word = thread * ${own}u; word < (thread + 1u) * ${own}u; word++) { own += countOneBits(marked(word)); }
    var at = marksBefore + before(thread, own);
    for (var word = thread * ${own}u; word < (thread + 1u) * ${own}u; word++) {
      let marks = marked(word);
      var left = marks.x | marks.y;
      while (left != 0u) {
        let bit = countTrailingZeros(left);
        left &= left - 1u;
        let tie = (marks.y >> bit) & 1u;
        if (tie == 0u || at.y < wanted) {
          let place = at.x + min(at.y, wanted);
          let position = tile + word * 32u + bit;
          ${keep(keeps, "place", "position", "values[base + position]")}
        }
        at += vec2<u32>(1u - tie, tie);
      }
    }
    for (var i = 0u; i < ${SCAN_GROUPS}u; i++) { marksBefore += groups[i]; }
    workgroupBarrier();
  }
`;
}

function keep(keeps: boolean, place: string, position: string, value: string): string {
  return `positions[to + ${place}] = ${position};${keeps ? ` keptValues[to + ${place}] = ${value};` : ""}`;
}
