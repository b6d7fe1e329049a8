/**
 * The WGSL of one split: 256 KV rows at a fixed multiple, against all query heads that share a KV head (or one of them).
 * Teams of lanes read each K row in 16-byte pieces; the products of a team meet in workgroup memory, so no subgroup
 * feature is needed. Knows one workgroup's work; `attention.ts` decides how many there are.
 */

import { EMPTY_LSE, type HeadShape, kvAddressWgsl } from "./kv_pages.ts";
import type { BindingSpec, KernelSpec, ParamField } from "./pipeline.ts";
import { ROW_TABLE_WGSL, SET_SHAPE_CODE } from "./row_table.ts";

/** KV rows of one split. */
export const SPLIT_ROWS = 256;

/** What tells one variant of the kernel from another. */
export interface SplitOptions extends HeadShape {
  /** Query heads of one workgroup: those of a KV head or a share of them; 1 when each has its own set. */
  readonly headsTogether: number;
  /** Whether the kernel serves rows whose query heads have a set each, or all other rows. */
  readonly ownSets: boolean;
  readonly gathered: boolean;
  readonly scores: boolean;
  /** Threads of a workgroup; a power of two. */
  readonly threads: number;
  /** Most lanes that share one K row; 1 where a lane's reads are not merged with its neighbours' anyway. */
  readonly maxLanes: 1 | 4;
}

/** K rows that a team has in flight. */
const ROWS_AT_ONCE = 4;
/** Threads that find the largest score and the sum of a head's split; each looks at 8 rows. */
const SEGMENTS = SPLIT_ROWS / 8;
/** Heads whose outputs are added up over teams at the same time: bounds workgroup memory. */
const HEADS_ADDED_AT_ONCE = 4;

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
  const read = (name: string, type: string): BindingSpec => ({ name, type, access: "read" });
  const write = (name: string, type: string): BindingSpec => ({ name, type, access: "read_write" });
  const params: ParamField[] = [
    ...["firstRow", "callRow", "rows", "maxPages"].map((name) => [name, "u32"] as const),
    ["scale", "f32"],
    ...(options.scores ? [["scoreStride", "u32"] as const] : []),
    ...(options.gathered ? [["sets", "u32"] as const, ["selectionStride", "u32"] as const] : []),
  ];
  return {
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("k", "array<vec4<u32>>"),
      read("v", "array<vec4<u32>>"),
      read("pageTable", "array<u32>"),
      read("rowTable", "array<vec4<u32>>"),
      write("partsO", "array<vec4<f32>>"),
      write("partsLse", "array<f32>"),
      write("outO", "array<vec4<f32>>"),
      write("outLse", "array<f32>"),
      ...(options.scores ? [write("scores", "array<f32>")] : []),
      ...(options.gathered ? [read("selection", "array<u32>")] : []),
    ],
    params,
    source: source(options),
  };
}

/** Numbers that follow from the options. */
interface Plan extends SplitOptions {
  /** 16-byte pieces of a K or V row. */
  readonly pieces: number;
  /** Lanes that share a K row: a divisor of `pieces`. */
  readonly lanes: number;
  /** K rows of one turn of all teams. */
  readonly turnRows: number;
  /** Teams of `pieces` lanes that read V rows. */
  readonly valueTeams: number;
}

function planOf(options: SplitOptions): Plan {
  const pieces = options.headDim / 8;
  let lanes: number = options.maxLanes;
  while (pieces % lanes !== 0) lanes /= 2;
  const turnRows = Math.min(SPLIT_ROWS, (options.threads / lanes) * ROWS_AT_ONCE);
  return { ...options, pieces, lanes, turnRows, valueTeams: Math.floor(options.threads / pieces) };
}

function source(options: SplitOptions): string {
  const plan = planOf(options);
  const { headsTogether: G, threads, pieces, lanes, turnRows, valueTeams } = plan;
  const meeting = lanes > 1 ? turnRows * G : 0;
  const adding = valueTeams * pieces * 2 * Math.min(G, HEADS_ADDED_AT_ONCE);
  return /* wgsl */ `
${ROW_TABLE_WGSL}${splitRangeWgsl(plan.gathered)}${kvAddressWgsl(plan, 8)}
var<workgroup> query: array<vec4<f32>, ${G * pieces * 2}>;
var<workgroup> rowAt: array<u32, ${SPLIT_ROWS}>;
var<workgroup> weights: array<vec4<f32>, ${(G * SPLIT_ROWS) / 4}>;
var<workgroup> segments: array<vec4<f32>, ${(G * SEGMENTS) / 4}>;
var<workgroup> maxima: array<f32, ${G}>;
var<workgroup> meeting: array<vec4<f32>, ${Math.max(meeting, adding)}>;

fn low(words: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)); }
fn high(words: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)); }
${largestWgsl("segmentsMax", "max", String(EMPTY_LSE))}${largestWgsl("segmentsSum", "+", "0")}
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
  let end = min(${plan.gathered ? "min(entry.selected, entry.kvLimit)" : "entry.kvLimit"}, start + ${SPLIT_ROWS}u);
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

/** One of the two reductions over a head's segments, always in the same order. */
function largestWgsl(name: string, operation: "max" | "+", zero: string): string {
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

/** Scores of all rows of the split into `weights`, of hidden rows the empty floor; each row's address into `rowAt`. */
function scoresWgsl(plan: Plan): string {
  const { headsTogether: G, threads, lanes, turnRows, pieces, gathered } = plan;
  const teams = threads / lanes;
  const each = range(turnRows / teams);
  const heads = range(G);
  const sums = each.map((u) => heads.map((g) => `var s${u}_${g} = 0.0;`).join(" ")).join("\n    ");
  const rowOf = (u: number) => /* wgsl */ `
    let index${u} = min(turn + ${u * teams}u + team, end - 1u);
    let picked${u} = ${gathered ? `selection[selectionAt + index${u}]` : `index${u}`};
    let local${u} = min(picked${u}, entry.kvLimit - 1u);
    let at${u} = kvAddress(entry.sequenceSlot, local${u}, kvHead);
    let seen${u} = turn + ${u * teams}u + team < end && picked${u} >= entry.kvFrom && picked${u} < entry.kvLimit;
    if (lane == 0u) { rowAt[turn - start + ${u * teams}u + team] = at${u}; }`;
  return /* wgsl */ `
  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
  for (var turn = start; turn < end; turn += ${turnRows}u) {
    ${each.map(rowOf).join("")}
    ${sums}
    for (var piece = lane; piece < ${pieces}u; piece += ${lanes}u) {
      ${each.map((u) => `let k${u} = k[at${u} + piece];`).join(" ")}
      ${each.map((u) => `let a${u} = low(k${u}); let b${u} = high(k${u});`).join(" ")}
${
    heads.map((g) => /* wgsl */ `
      let qa${g} = query[${g * pieces * 2}u + 2u * piece]; let qb${g} = query[${g * pieces * 2}u + 2u * piece + 1u];
      ${each.map((u) => `s${u}_${g} += dot(a${u}, qa${g}) + dot(b${u}, qb${g});`).join(" ")}`).join("")
  }
    }
${lanes === 1 ? each.map((u) => keepScore(plan, u)).join("") : meetWgsl(plan)}
  }
  workgroupBarrier();
`;
}

/** With one lane a row, the lane has the whole product. */
function keepScore(plan: Plan, u: number): string {
  const slot = `turn - start + ${u * plan.threads}u + team`;
  return range(plan.headsTogether).map((g) => /* wgsl */ `
    weights[${(g * SPLIT_ROWS) / 4}u + (${slot}) / 4u][(${slot}) % 4u] = select(${EMPTY_LSE}f, s${u}_${g}, seen${u});
    ${plan.scores ? `if (seen${u}) { ${writeScore(plan, String(g), `local${u}`, `s${u}_${g}`)} }` : ""}`).join("");
}

/** With several lanes a row, their parts meet in workgroup memory; hidden rows carry the floor in the first lane. */
function meetWgsl(plan: Plan): string {
  const { headsTogether: G, threads, lanes, turnRows } = plan;
  const teams = threads / lanes;
  const parts = range(turnRows / teams).flatMap((u) =>
    range(G).map((g) => `meeting[${g * turnRows + u * teams}u + team][lane] = s${u}_${g};`)
  );
  const sum = ["x", "y", "z", "w"].slice(0, lanes).map((lane) => `four.${lane}`).join(" + ");
  return /* wgsl */ `
    ${parts.join("\n    ")}
    workgroupBarrier();
    for (var i = thread; i < ${G * turnRows}u; i += ${threads}u) {
      let four = meeting[i];
      let index = turn + i % ${turnRows}u;
      let head = i / ${turnRows}u;
      ${plan.gathered ? `let local = selection[selectionAt + min(index, end - 1u)];` : "let local = index;"}
      let seen = index < end && local >= entry.kvFrom && local < entry.kvLimit;
      let slot = index - start;
      weights[head * ${SPLIT_ROWS / 4}u + slot / 4u][slot % 4u] = select(${EMPTY_LSE}f, ${sum}, seen);
      ${plan.scores ? `if (seen) { ${writeScore(plan, "head", "local", sum)} }` : ""}
    }
    workgroupBarrier();`;
}

function writeScore({ heads }: Plan, head: string, local: string, value: string): string {
  return `scores[((params.callRow + row) * ${heads}u + firstHead + ${head}) * params.scoreStride + ${local}] = ${value};`;
}

/** `weights` from scores to exponentials; `segments` from maxima to sums. Turns that were not scored count as hidden. */
function softmaxWgsl({ headsTogether: G, threads, turnRows }: Plan): string {
  return /* wgsl */ `
  let scored = (end - start + ${turnRows - 1}u) / ${turnRows}u * ${turnRows}u;
  for (var i = thread; i < ${G * SEGMENTS}u; i += ${threads}u) {
    let hidden = i % ${SEGMENTS}u * 8u >= scored;
    let eight = max(weights[2u * i], weights[2u * i + 1u]);
    segments[i / 4u][i % 4u] = select(max(max(eight.x, eight.y), max(eight.z, eight.w)), ${EMPTY_LSE}f, hidden);
  }
  workgroupBarrier();
  if (thread < ${G}u) { maxima[thread] = segmentsMax(thread); }
${range(G).map((g) => `  let top${g} = segmentsMax(${g}u);\n`).join("")}
  workgroupBarrier();
${
    range(G).map((g) => /* wgsl */ `
  for (var i = thread; i < ${SEGMENTS}u; i += ${threads}u) {
    let at = ${(g * SPLIT_ROWS) / 4}u + 2u * i;
    var eight = vec4<f32>();
    if (i * 8u < scored) {
      let a = weights[at];
      let b = weights[at + 1u];
      let ea = select(exp(a - top${g}), vec4<f32>(), a <= vec4<f32>(${EMPTY_LSE}f));
      let eb = select(exp(b - top${g}), vec4<f32>(), b <= vec4<f32>(${EMPTY_LSE}f));
      weights[at] = ea;
      weights[at + 1u] = eb;
      eight = ea + eb;
    }
    segments[(${g * SEGMENTS}u + i) / 4u][i % 4u] = eight.x + eight.y + (eight.z + eight.w);
  }`).join("")
  }
  workgroupBarrier();
`;
}

/** The weighted sum of V rows: teams take every n-th quad of rows, then their sums are added in order. */
function valuesWgsl(plan: Plan): string {
  const { headsTogether: G, pieces, valueTeams } = plan;
  const heads = range(G);
  const quad = range(4);
  const add = (g: number) =>
    ["x", "y", "z", "w"].map((c, r) => `oa${g} += w${g}.${c} * a${r}; ob${g} += w${g}.${c} * b${r};`).join(" ");
  const chunks = range(Math.ceil(G / HEADS_ADDED_AT_ONCE)).map((chunk) =>
    heads.slice(chunk * HEADS_ADDED_AT_ONCE, (chunk + 1) * HEADS_ADDED_AT_ONCE)
  );
  return /* wgsl */ `
  let valueTeam = thread / ${pieces}u;
  let piece = thread % ${pieces}u;
  ${heads.map((g) => `var oa${g} = vec4<f32>(); var ob${g} = vec4<f32>();`).join(" ")}
  if (valueTeam < ${valueTeams}u) {
    let quads = (end - start + 3u) / 4u;
    for (var i = valueTeam; i < quads; i += ${valueTeams}u) {
      ${quad.map((r) => `let v${r} = v[rowAt[4u * i + ${r}u] + piece];`).join(" ")}
      ${quad.map((r) => `let a${r} = low(v${r}); let b${r} = high(v${r});`).join(" ")}
      ${heads.map((g) => `let w${g} = weights[${(g * SPLIT_ROWS) / 4}u + i];`).join(" ")}
      ${heads.map(add).join("\n      ")}
    }
  }
${chunks.map((chunk) => addTeamsWgsl(plan, chunk)).join("")}
`;
}

function addTeamsWgsl(plan: Plan, chunk: readonly number[]): string {
  const { heads, pieces, valueTeams, threads } = plan;
  const perHead = valueTeams * pieces * 2;
  const put = chunk.map((g, i) =>
    `meeting[${i * perHead}u + 2u * thread] = oa${g}; meeting[${i * perHead}u + 2u * thread + 1u] = ob${g};`
  );
  const first = chunk[0] ?? 0;
  return /* wgsl */ `
  if (valueTeam < ${valueTeams}u) { ${put.join(" ")} }
  workgroupBarrier();
  for (var i = thread; i < ${chunk.length * pieces * 2}u; i += ${threads}u) {
    let slot = i / ${pieces * 2}u;
    let head = ${first}u + slot;
    let source = slot * ${perHead}u + i % ${pieces * 2}u;
    var sum = meeting[source];
    ${range(valueTeams - 1).map((t) => `sum += meeting[source + ${(t + 1) * pieces * 2}u];`).join(" ")}
    let mass = segmentsSum(head);
    let o = select(vec4<f32>(), sum / max(mass, 1e-30), mass > 0.0);
    let lse = select(${EMPTY_LSE}f, maxima[head] + log(max(mass, 1e-30)), mass > 0.0);
    var to = (params.firstRow + row) * ${heads}u + firstHead + head;
    let vec = i % ${pieces * 2}u;
    // A row's only split is its state: it needs no merge.
    if (range.live == 1u) {
      outO[to * ${pieces * 2}u + vec] = o;
      if (vec == 0u) { outLse[to] = lse; }
    } else {
      to = (group.x * params.rows + row) * ${heads}u + firstHead + head;
      partsO[to * ${pieces * 2}u + vec] = o;
      if (vec == 0u) { partsLse[to] = lse; }
    }
  }
  workgroupBarrier();
`;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
