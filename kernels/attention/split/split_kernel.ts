/**
 * The WGSL of one split: so many KV rows at a fixed multiple, against all query heads that share a KV head (or some of them),
 * of one row or of several rows of a sequence. Each row and head is a column; a column's operations and their order are
 * the same in any company. Teams of lanes read each K row in 16-byte pieces; the products of a team meet in workgroup
 * memory, so no subgroup feature is needed. Knows one workgroup's work; `decode_attention.ts` decides how many there are.
 */

import { scoresWgsl, softmaxWgsl } from "./split_phases.ts";
import { evenCut, splitRangeWgsl } from "./split_cut.ts";
import { findRowsWgsl, gatheredEndWgsl, pickedMemoryWgsl } from "./split_gather.ts";
import { memoryOf, type Plan, planOf, type SplitOptions } from "./split_plan.ts";
import { valuesWgsl } from "./split_values.ts";
import { EMPTY_LSE, HALVES_WGSL, kvAddressWgsl, PAGED_KV_BINDINGS, PART_BINDINGS, stateBindings } from "../kv_pages.ts";
import type { KernelSpec, ParamField } from "../../pipeline.ts";
import { ROW_FORM_WGSL, storeFour } from "../../rows.ts";
import { LIST_WORDS, LISTED_BLOCK_WGSL } from "../row_blocks.ts";
import { ROW_TABLE_WGSL, SET_SHAPE_CODE } from "../row_table.ts";
import { reads, unroll, writes } from "../../wgsl.ts";

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
      ...PAGED_KV_BINDINGS,
      ...PART_BINDINGS,
      ...stateBindings(options.outForm),
      ...(options.scores ? [writes("scores", "array<f32>")] : []),
      ...(options.gathered ? [reads("selection", "array<u32>")] : []),
    ],
    params,
    ...(options.listed ? { listWords: LIST_WORDS } : {}),
    source: source(planOf(options)),
  };
}

function source(plan: Plan): string {
  const { headsTogether: G, rowsTogether, threads, pieces } = plan;
  const memory = memoryOf(plan);
  const perRow = G * pieces * 2;
  return /* wgsl */ `
${ROW_TABLE_WGSL}${splitRangeWgsl(evenCut(plan))}${kvAddressWgsl(plan, 8)}${HALVES_WGSL}
${plan.listed ? LISTED_BLOCK_WGSL : ""}${plan.outForm === "f16" ? ROW_FORM_WGSL : ""}
var<workgroup> query: array<vec4<f32>, ${memory.query}>;
var<workgroup> rowAt: array<u32, ${memory.rowAt}>;
${pickedMemoryWgsl(plan)}var<workgroup> weights: array<vec4<f32>, ${memory.weights}>;
var<workgroup> segments: array<vec4<f32>, ${memory.segments}>;
var<workgroup> maxima: array<f32, ${memory.columns}>;
var<workgroup> masses: array<f32, ${memory.columns}>;
var<workgroup> meeting: array<vec4<f32>, ${memory.meeting}>;

${reductionWgsl("segmentsMax", plan, "max")}${reductionWgsl("segmentsSum", plan, "+")}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
${rowsWgsl(plan)}
${headsWgsl(plan)}
${splitWgsl(plan)}
  for (var i = thread; i < ${perRow}u; i += ${threads}u) {
${unroll(rowsTogether, (r) => `    query[${r * perRow}u + i] = params.scale * q[${vectorAt(plan, `row${r}`)} + i];`)}
  }
${findRowsWgsl(plan)}
  workgroupBarrier();
${scoresWgsl(plan)}
${softmaxWgsl(plan)}
${valuesWgsl(plan)}
}
`;
}

/** WGSL: where a row's first head of this workgroup lies in q and the outputs. */
function vectorAt({ heads, pieces }: Plan, row: string): string {
  return `((params.firstRow + ${row}) * ${heads}u + firstHead) * ${pieces * 2}u`;
}

/** The workgroup's rows; a block that is not full repeats its last row, for nothing. */
function rowsWgsl({ rowsTogether, listed }: Plan): string {
  const rows = !listed ? "let row0 = group.x;" : `let block = listedBlock(group.x);
${unroll(rowsTogether, (r) => `  let row${r} = block.first + min(${r}u, block.rows - 1u);`)}`;
  return `  ${rows}
${
    unroll(rowsTogether, (r) =>
      `  let entry${r} = readRow(params.firstRow + row${r}); let range${r} = splitRange(entry${r});`)
  }`;
}

/**
 * Which split of the rows together this is, and its bounds. Rows that see nothing are done with here; a row whose own
 * splits begin later or end earlier is hidden where it sees nothing.
 */
function splitWgsl(plan: Plan): string {
  const { headsTogether: G, rowsTogether, pieces, threads, gathered, splitRows, outForm } = plan;
  const each = (name: "min" | "max", value: (r: number) => string) =>
    Array.from({ length: rowsTogether }, (_, r) => value(r)).reduce((a, b) => `${name}(${a}, ${b})`);
  const empty = (r: number) =>
    outForm === "parts" ? "" : /* wgsl */ `
  if (group.z == 0u && range${r}.live == 0u) {
    let at = ${vectorAt(plan, `row${r}`)};
    for (var i = thread; i < ${G * pieces * 2}u; i += ${threads}u) { ${
      storeFour(outForm, "outO", { value: "vec4<f32>()", at: "at + i" })
    } }
    if (thread < ${G}u) { outLse[at / ${pieces * 2}u + thread] = ${EMPTY_LSE}f; }
  }`;
  return /* wgsl */ `
${unroll(rowsTogether, empty)}
  let split = ${each("min", (r) => `select(range${r}.first, 0xffffffffu, range${r}.live == 0u)`)} + group.z;
  if (split >= ${each("max", (r) => `range${r}.first + range${r}.live`)}) { return; }
  let start = split * ${splitRows}u;
${
    gathered
      ? gatheredEndWgsl(plan)
      : `  let end = min(${each("max", (r) => `entry${r}.kvLimit`)}, start + ${splitRows}u);`
  }`;
}

/** One of the two reductions over a column's segments, always in the same order. */
function reductionWgsl(name: string, { segments }: Plan, operation: "max" | "+"): string {
  const zero = operation === "max" ? EMPTY_LSE : 0;
  const combine = (a: string, b: string) => operation === "max" ? `max(${a}, ${b})` : `${a} + ${b}`;
  return /* wgsl */ `
fn ${name}(column: u32) -> f32 {
  var four = vec4<f32>(${zero}f);
  for (var i = 0u; i < ${segments / 4}u; i++) { four = ${combine("four", `segments[column * ${segments / 4}u + i]`)}; }
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
    lines.push(`if (entry0.setShape ${ownSets ? "!=" : "=="} ${SET_SHAPE_CODE.query_head}u) { return; }`);
    const own = ownSets ? "group.y" : `select(kvHead, 0u, entry0.setShape == ${SET_SHAPE_CODE.all_heads}u)`;
    lines.push(`let selectionAt = ((params.callRow + row0) * params.sets + ${own}) * params.selectionStride;`);
  }
  return lines.map((line) => `  ${line}`).join("\n");
}
