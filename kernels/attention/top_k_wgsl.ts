/**
 * The WGSL of a radix select in one workgroup: three passes find the digits of the last value kept, a fourth one keeps what lies above
 * it. No sorting. `top_k.ts` dispatches it.
 */

import { MASS_WGSL } from "./mass.ts";
import { ROW_TABLE_WGSL, SET_SHAPE_CODE } from "./row_table.ts";
import { cutWgsl, goalWgsl } from "./top_k_adaptive.ts";
import { unroll } from "../wgsl.ts";

/** What distinguishes variants of the kernel. */
export interface TopKVariant {
  readonly threads: number;
  /** Which values a workgroup looks at: all of a set, those of a chunk of it, or the best of all chunks. */
  readonly stage: "whole" | "chunk" | "rest";
  /** Whether values are kept beside positions. */
  readonly keeps: boolean;
  /** Whether some rows may be adaptive. */
  readonly adapts: boolean;
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
 * WGSL of a variant. Bindings: rowTable, values, positions, then keptValues, tally and best where it has them. Of a long set each chunk
 * comes first, whose best are the values of the rest: they hold the best of all, in ascending order.
 */
export function topKWgsl(variant: TopKVariant): string {
  const { threads, adapts } = variant;
  return /* wgsl */ `
${ROW_TABLE_WGSL}${MASS_WGSL}${declareWgsl(variant)}${scanWgsl(threads)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let entry = readRow(params.firstRow + group.y);
  let wished = min(entry.selected, entry.kvLimit);
${rangeWgsl(variant)}
  var sets = params.kvHeads;
  if (entry.setShape == ${SET_SHAPE_CODE.query_head}u) { sets = params.heads; }
  if (entry.setShape == ${SET_SHAPE_CODE.all_heads}u) { sets = 1u; }
  if (group.x >= sets || k == 0u) { return; }
  let list = group.y * params.sets + group.x;
  let base = list * params.stride + start;
  let to = list * params.keptStride + kept;
  if (k == n && entry.coverage == 0u) {
    for (var i = thread; i < n; i += ${threads}u) { ${keep(variant, { place: "i", index: "i" })} }
    return;
  }
  var threshold = 0u;
  var goal = vec3<u32>(k, k, 0u);
${adapts ? goalWgsl(threads) : ""}
${DIGITS.map((digit) => digitWgsl({ threads, adapts }, digit)).join("")}
  var wanted = goal.x;
${adapts ? cutWgsl(threads) : ""}
${keepWgsl(variant)}
}
`;
}

/** What the threads of a workgroup share, and how keys, bins and bitmaps are read. */
function declareWgsl({ threads, adapts }: Pick<TopKVariant, "threads" | "adapts">): string {
  return /* wgsl */ `
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
`;
}

/**
 * Declares which values are looked at, `n` from `start` on, how many of them are wanted, `k`, and where they are `kept`. The best of
 * chunks lie back to back: each chunk but the last has as many values as are wanted, or more.
 */
function rangeWgsl({ stage }: TopKVariant): string {
  switch (stage) {
    case "whole":
      return `
  let start = 0u;
  let kept = 0u;
  let n = entry.kvLimit;
  let k = wished;`;
    case "chunk":
      return `
  let start = group.z * params.chunk;
  let kept = group.z * wished;
  if (start >= entry.kvLimit) { return; }
  let n = min(params.chunk, entry.kvLimit - start);
  let k = min(wished, n);`;
    case "rest":
      return `
  let start = 0u;
  let kept = 0u;
  let full = max(entry.kvLimit, 1u) / params.chunk;
  let n = full * wished + min(wished, entry.kvLimit - full * params.chunk);
  let k = wished;`;
  }
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
function digitWgsl(variant: Pick<TopKVariant, "threads" | "adapts">, digit: (typeof DIGITS)[number]): string {
  return /* wgsl */ `
${countWgsl(variant, digit)}
  workgroupBarrier();
${findWgsl(variant)}
  workgroupBarrier();
  threshold |= found.x << ${digit.shift}u;
  goal -= min(goal, found.yyz);
  workgroupBarrier();
`;
}

/** Counts the values of each bin, and adds up their masses. */
function countWgsl(
  { threads, adapts }: Pick<TopKVariant, "threads" | "adapts">,
  { shift, bits }: (typeof DIGITS)[number],
): string {
  const above = shift + bits;
  const agrees = above === 32 ? "true" : `key >> ${above}u == threshold >> ${above}u`;
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
  }`;
}

/** Finds the bin of the last value kept: each thread looks through its share of the bins, from the highest down. */
function findWgsl({ threads }: Pick<TopKVariant, "threads">): string {
  const own = BINS / threads;
  return /* wgsl */ `
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
  }`;
}

/**
 * Neighbouring threads read neighbouring values and mark in two bitmaps those above the threshold and those equal to it; then
 * each thread keeps what its own words mark. One tile of positions after the other, in ascending order.
 */
function keepWgsl(variant: TopKVariant): string {
  return /* wgsl */ `
  var marksBefore = vec2<u32>();
  for (var tile = 0u; tile < n; tile += ${BITMAP_WORDS * 32}u) {
${markWgsl(variant)}
    workgroupBarrier();
${keepMarkedWgsl(variant)}
    for (var i = 0u; i < ${SCAN_GROUPS}u; i++) { marksBefore += groups[i]; }
    workgroupBarrier();
  }
`;
}

/** Marks the values of a tile in both bitmaps. */
function markWgsl({ threads }: Pick<TopKVariant, "threads">): string {
  const mark = (u: number) => /* wgsl */ `
      if (i + ${u * threads}u < end) {
        let key = keyOf(value${u});
        let bit = i + ${u * threads}u - tile;
        let map = select(0u, ${BITMAP_WORDS}u, key == threshold);
        if (key >= threshold) { atomicOr(&bins[map + bit / 32u], 1u << (bit % 32u)); }
      }`;
  return /* wgsl */ `
    let end = min(tile + ${BITMAP_WORDS * 32}u, n);
    for (var i = thread; i < ${2 * BITMAP_WORDS}u; i += ${threads}u) { atomicStore(&bins[i], 0u); }
    workgroupBarrier();
    for (var i = tile + thread; i < end; i += ${AT_ONCE * threads}u) {
      ${unroll(AT_ONCE, (u) => `let value${u} = values[base + min(i + ${u * threads}u, n - 1u)];`)}
      ${unroll(AT_ONCE, mark)}
    }`;
}

/** Keeps what the words of a thread mark: all that lies above the threshold, and as many ties, the first, as are still wanted. */
function keepMarkedWgsl(variant: TopKVariant): string {
  const own = BITMAP_WORDS / variant.threads;
  return /* wgsl */ `
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
          let index = tile + word * 32u + bit;
          ${keep(variant, { place: "place", index: "index" })}
        }
        at += vec2<u32>(1u - tie, tie);
      }
    }`;
}

/** Keeps one value of the range; WGSL of its place among those kept, and its index in the range. */
function keep(
  { stage, keeps }: TopKVariant,
  { place, index }: { readonly place: string; readonly index: string },
): string {
  const position = stage === "rest" ? `best[base + ${index}]` : `start + ${index}`;
  const value = keeps ? `keptValues[to + ${place}] = values[base + ${index}];` : "";
  return `positions[to + ${place}] = ${position}; ${value}`;
}
