/**
 * The WGSL of one split: 256 KV rows at a fixed multiple, against all query heads that share a KV head (or some of them).
 * Teams of lanes read each K row in 16-byte pieces; the products of a team meet in workgroup memory, so no subgroup
 * feature is needed. Knows one workgroup's work; `attention.ts` decides how many there are.
 */

import { scoresWgsl, softmaxWgsl, valuesWgsl } from "./attention_split_phases.ts";
import {
  HEADS_ADDED_AT_ONCE,
  type Plan,
  planOf,
  SEGMENTS,
  SPLIT_ROWS,
  type SplitOptions,
} from "./attention_split_plan.ts";
import { EMPTY_LSE, HALVES_WGSL, kvAddressWgsl } from "./kv_pages.ts";
import type { KernelSpec, ParamField } from "../pipeline.ts";
import { NO_POSITION, ROW_TABLE_WGSL, SET_SHAPE_CODE } from "./row_table.ts";
import { reads, unroll, writes } from "../wgsl.ts";

/** WGSL: the splits of a row, `first` in multiples of 256 rows and how many are `live`. */
export function splitRangeWgsl(gathered: boolean): string {
  const body = gathered
    ? `return SplitRange(0u, (min(row.selected, row.kvLimit) + ${SPLIT_ROWS - 1}u) / ${SPLIT_ROWS}u);`
    : `
  if (row.kvLimit <= row.kvFrom) { return SplitRange(0u, 0u); }
  let first = row.kvFrom / ${SPLIT_ROWS}u;
  return SplitRange(first, (row.kvLimit - 1u) / ${SPLIT_ROWS}u - first + 1u);`;
  return /* wgsl */ `
struct SplitRange { first: u32, live: u32 }
fn splitRange(row: Row) -> SplitRange {${body}
}
`;
}

/** The kernel of one variant. */
export function splitSpec(options: SplitOptions): KernelSpec {
  const params: ParamField[] = [
    ...["firstRow", "callRow", "rows", "maxPages"].map((name) => [name, "u32"] as const),
    ["scale", "f32"],
    ...(options.scores ? [["scoreStride", "u32"] as const] : []),
    ...(options.gathered ? [["sets", "u32"] as const, ["selectionStride", "u32"] as const] : []),
  ];
  return {
    bindings: [
      reads("q", "array<vec4<f32>>"),
      reads("k", "array<vec4<u32>>"),
      reads("v", "array<vec4<u32>>"),
      reads("pageTable", "array<u32>"),
      reads("rowTable", "array<vec4<u32>>"),
      writes("partsO", "array<vec4<f32>>"),
      writes("partsLse", "array<f32>"),
      writes("outO", "array<vec4<f32>>"),
      writes("outLse", "array<f32>"),
      ...(options.scores ? [writes("scores", "array<f32>")] : []),
      ...(options.gathered ? [reads("selection", "array<u32>")] : []),
    ],
    params,
    source: source(options),
  };
}

function source(options: SplitOptions): string {
  const plan = planOf(options);
  const { headsTogether: G, threads, pieces, lanes, turnRows, valueTeams } = plan;
  const meeting = lanes > 1 ? turnRows * G : 0;
  const adding = valueTeams * pieces * 2 * Math.min(G, HEADS_ADDED_AT_ONCE);
  return /* wgsl */ `
${ROW_TABLE_WGSL}${splitRangeWgsl(plan.gathered)}${kvAddressWgsl(plan, 8)}${HALVES_WGSL}
var<workgroup> query: array<vec4<f32>, ${G * pieces * 2}>;
var<workgroup> rowAt: array<u32, ${SPLIT_ROWS}>;
var<workgroup> weights: array<vec4<f32>, ${(G * SPLIT_ROWS) / 4}>;
var<workgroup> segments: array<vec4<f32>, ${(G * SEGMENTS) / 4}>;
var<workgroup> maxima: array<f32, ${G}>;
var<workgroup> meeting: array<vec4<f32>, ${Math.max(meeting, adding)}>;

${reductionWgsl("segmentsMax", "max", String(EMPTY_LSE))}${reductionWgsl("segmentsSum", "+", "0")}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.z;
  let entry = readRow(params.firstRow + row);
${headsWgsl(plan)}
  let range = splitRange(entry);
  if (group.x >= max(range.live, 1u)) { return; }
  if (range.live == 0u) {
    for (var i = thread; i < ${G * pieces * 2}u; i += ${threads}u) {
      outO[((params.firstRow + row) * ${plan.heads}u + firstHead) * ${pieces * 2}u + i] = vec4<f32>();
    }
    if (thread < ${G}u) { outLse[(params.firstRow + row) * ${plan.heads}u + firstHead + thread] = ${EMPTY_LSE}f; }
    return;
  }
  let start = (range.first + group.x) * ${SPLIT_ROWS}u;
${endWgsl(plan)}
  for (var i = thread; i < ${G * pieces * 2}u; i += ${threads}u) {
    query[i] = params.scale * q[((params.firstRow + row) * ${plan.heads}u + firstHead) * ${pieces * 2}u + i];
  }
  workgroupBarrier();
${scoresWgsl(plan)}
${softmaxWgsl(plan)}
${valuesWgsl(plan)}
}
`;
}

/**
 * Where the rows of a split end. A set that is padded ends where its padding begins, so that a split of padding alone
 * reads nothing and leaves an empty state; the 256 entries are looked at in two rounds of 16 loads that do not wait for
 * each other.
 */
function endWgsl({ gathered }: Plan): string {
  if (!gathered) return `  let end = min(entry.kvLimit, start + ${SPLIT_ROWS}u);`;
  const step = Math.sqrt(SPLIT_ROWS);
  const count = (into: string, from: string, stride: number) =>
    unroll(step, (u) => {
      const at = `${from} + ${u * stride}u`;
      const entry = `selection[selectionAt + min(${at}, full - 1u)]`;
      return `    ${into} += select(0u, 1u, ${at} < full && ${entry} != ${NO_POSITION}u);`;
    });
  return /* wgsl */ `
  let full = min(min(entry.selected, entry.kvLimit), start + ${SPLIT_ROWS}u);
  var blocks = 0u;
${count("blocks", "start", step)}
  var end = start;
  if (blocks > 0u) {
    let block = start + (blocks - 1u) * ${step}u;
    end = block;
${count("end", "block", 1)}
  }`;
}

/** One of the two reductions over a head's segments, always in the same order. */
function reductionWgsl(name: string, operation: "max" | "+", zero: string): string {
  const combine = (a: string, b: string) => operation === "max" ? `max(${a}, ${b})` : `${a} + ${b}`;
  return /* wgsl */ `
fn ${name}(head: u32) -> f32 {
  var four = vec4<f32>(${zero}f);
  for (var i = 0u; i < ${SEGMENTS / 4}u; i++) { four = ${combine("four", `segments[head * ${SEGMENTS / 4}u + i]`)}; }
  return ${combine(combine("four.x", "four.y"), combine("four.z", "four.w"))};
}
`;
}

/** Which heads a workgroup computes, and which set it reads; rows of the other kind of set belong to another dispatch. */
function headsWgsl({ heads, kvHeads, headsTogether, gathered, ownSets }: Plan): string {
  const lines = [
    `let kvHead = group.y / ${heads / kvHeads / headsTogether}u;`,
    `let firstHead = group.y * ${headsTogether}u;`,
  ];
  if (gathered) {
    lines.push(`if (entry.setShape ${ownSets ? "!=" : "=="} ${SET_SHAPE_CODE.query_head}u) { return; }`);
    const own = ownSets ? "group.y" : `select(kvHead, 0u, entry.setShape == ${SET_SHAPE_CODE.all_heads}u)`;
    lines.push(`let selectionAt = ((params.callRow + row) * params.sets + ${own}) * params.selectionStride;`);
  }
  return lines.map((line) => `  ${line}`).join("\n");
}
