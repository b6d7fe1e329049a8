/**
 * The WGSL of the tile for GPUs: two register-tiled products for each block of KV rows, with slices of their factors, and the
 * weights between them, in workgroup memory. A thread owns a few query rows, and of each block four keys, of the output some
 * dimensions. Arrays in workgroup memory are nested so that of the indices of a product's loads one depends on the thread and
 * all others are literals: checks of bounds, which naga puts before each load, are then computed once. Structs are padded to
 * an odd number of vectors, so that threads that read neighbouring ones do not collide. Knows one workgroup's work;
 * `prefill_attention.ts` decides how many there are.
 */

import { EMPTY_LSE, HALVES_WGSL, kvAddressWgsl } from "../kv_pages.ts";
import { keySlices, queryRowsWgsl, querySlices, valueSlices } from "./hardware_slices.ts";
import {
  BLOCK_ROWS,
  type HardwareTile,
  hardwareTileTokens,
  LANES,
  type Plan,
  planOf,
  stateOf,
} from "./hardware_tile_plan.ts";
import { ROW_TABLE_WGSL } from "../row_table.ts";
import { component, unroll } from "../../wgsl.ts";

/** A row's maximum before it has seen anything: above hidden scores (`EMPTY_LSE`), whose weights are thus 0, and below all others. */
const LOWEST_MAXIMUM = -1e29;

/** WGSL of the kernel. Bindings: q, k, v, pageTable, rowTable, outO, outLse; parameters: firstRow, rows, maxPages, scale. */
export function hardwareTileWgsl(options: HardwareTile): string {
  const plan = planOf(options);
  const { threads, ownRows, ownVecs } = plan;
  const tokens = hardwareTileTokens(options);
  return /* wgsl */ `
${ROW_TABLE_WGSL}${kvAddressWgsl(options, 8)}${HALVES_WGSL}${memoryWgsl(plan)}
fn largest(four: vec4<f32>) -> f32 { return max(max(four.x, four.y), max(four.z, four.w)); }

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let kvHead = workgroup.y;
  let firstToken = workgroup.x * ${tokens}u;
  let lastToken = min(firstToken + ${tokens}u, params.rows) - 1u;
  let first = readRow(params.firstRow + firstToken);
  let last = readRow(params.firstRow + lastToken);
  let rowGroup = thread / ${LANES}u;
  let lane = thread % ${LANES}u;
  // Exponentials are those of base 2.
  let scale = params.scale * ${Math.LOG2E};
${queryRowsWgsl(plan)}
${unroll(ownRows, (r) => `var top${r} = ${LOWEST_MAXIMUM}f; var mass${r} = 0.0;`)}
${unroll(ownRows, (r) => unroll(ownVecs, (c) => `var o${r}_${c} = vec4<f32>();`))}
  let end = (last.kvLimit + ${BLOCK_ROWS - 1}u) / ${BLOCK_ROWS}u;
  for (var block = first.kvFrom / ${BLOCK_ROWS}u; block < end; block++) {
    let start = block * ${BLOCK_ROWS}u;
    let address = kvAddress(last.sequenceSlot, start, kvHead);
${scoresWgsl(plan)}
    ${valueSlices(plan).ask("0u")}
    if (start < last.kvFrom || start + ${BLOCK_ROWS}u > first.kvLimit) {
${unroll(ownRows, (r) => hideWgsl(r, plan))}
    }
${softmaxWgsl(plan)}
${valuesWgsl(plan)}
  }
${storeWgsl(plan)}
}
`;
}

function memoryWgsl({ sliceVecs, ownRows, rowGroups, valueKeys, ownVecs }: Plan): string {
  return /* wgsl */ `
struct QueryRows { rows: array<array<vec4<f32>, ${sliceVecs}>, ${ownRows}>, padding: vec4<f32> }
struct FourKeys { keys: array<array<vec4<f32>, ${sliceVecs}>, 4>, padding: vec4<f32> }
// Of four keys each.
struct RowWeights { rows: array<vec4<f32>, ${ownRows}>, padding: vec4<f32> }
struct FourWeights { groups: array<RowWeights, ${rowGroups}>, padding: vec4<f32> }
var<workgroup> queries: array<QueryRows, ${rowGroups}>;
var<workgroup> keys: array<FourKeys, ${LANES}>;
var<workgroup> weights: array<array<FourWeights, ${valueKeys / 4}>, ${BLOCK_ROWS / valueKeys}>;
var<workgroup> values: array<array<array<vec4<f32>, ${LANES}>, ${ownVecs}>, ${valueKeys}>;
var<workgroup> maxima: array<array<array<vec4<f32>, ${LANES / 4}>, ${ownRows}>, ${rowGroups}>;
`;
}

/** Scaled scores of a thread's rows, each with its four keys. */
function scoresWgsl(plan: Plan): string {
  const { slices, sliceVecs, ownRows } = plan;
  const [queries, keys] = [querySlices(plan), keySlices(plan)];
  const step = (vec: number) => /* wgsl */ `
      {
        ${unroll(4, (j) => `let own${j} = keys[lane].keys[${j}][${vec}];`)}
        ${unroll(4, (i) => `let k${i} = vec4<f32>(${[0, 1, 2, 3].map((j) => `own${j}.${component(i)}`).join(", ")});`)}
        ${
    unroll(ownRows, (r) => /* wgsl */ `
        let q${r} = queries[rowGroup].rows[${r}][${vec}];
        ${unroll(4, (i) => `s${r} = fma(vec4<f32>(q${r}.${component(i)}), k${i}, s${r});`)}`)
  }
      }`;
  return /* wgsl */ `
    ${unroll(ownRows, (r) => `var s${r} = vec4<f32>();`)}
    ${queries.ask("0u")}
    ${keys.ask("0u")}
    for (var slice = 0u; slice < ${slices}u; slice++) {
      ${queries.put}
      ${keys.put}
      workgroupBarrier();
      let next = min(slice + 1u, ${slices - 1}u);
      ${queries.askAgain("next")}
      ${keys.askAgain("next")}
      ${unroll(sliceVecs, step)}
      workgroupBarrier();
    }
    ${unroll(ownRows, (r) => `s${r} *= scale;`)}`;
}

function hideWgsl(r: number, { group, usedRows, ownRows }: Plan): string {
  return /* wgsl */ `
      {
        let token = firstToken + min(rowGroup * ${ownRows}u + ${r}u, ${usedRows - 1}u) / ${group}u;
        let entry = readRow(params.firstRow + min(token, lastToken));
        let places = vec4<u32>(start + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        let seen = (places >= vec4<u32>(entry.kvFrom)) & (places < vec4<u32>(entry.kvLimit));
        s${r} = select(vec4<f32>(${EMPTY_LSE}f), s${r}, seen);
      }`;
}

/** What the lanes of a row have put where maxima meet, taken together by `join`. */
function overLanes(r: number, join: (a: string, b: string) => string): string {
  return Array.from({ length: LANES / 4 }, (_, i) => `maxima[rowGroup][${r}][${i}]`).reduce(join);
}

/** From scores to weights; a block that the row cannot see changes no bit of its state. A thread sums its own keys. */
function softmaxWgsl({ ownRows, ownVecs, valueKeys }: Plan): string {
  const fours = valueKeys / 4;
  const weigh = (r: number) => /* wgsl */ `
    let raised${r} = max(top${r}, largest(${overLanes(r, (a, b) => `max(${a}, ${b})`)}));
    let factor${r} = select(exp2(top${r} - raised${r}), 1.0, top${r} == raised${r});
    top${r} = raised${r};
    let p${r} = exp2(s${r} - vec4<f32>(raised${r}));
    weights[lane / ${fours}u][lane % ${fours}u].groups[rowGroup].rows[${r}] = p${r};
    mass${r} = mass${r} * factor${r} + dot(p${r}, vec4<f32>(1.0));
    ${unroll(ownVecs, (c) => `o${r}_${c} *= factor${r};`)}`;
  return /* wgsl */ `
    ${unroll(ownRows, (r) => `maxima[rowGroup][${r}][lane / 4u][lane % 4u] = largest(s${r});`)}
    workgroupBarrier();${unroll(ownRows, weigh)}`;
}

function valuesWgsl(plan: Plan): string {
  const { ownRows, ownVecs, valueKeys } = plan;
  const values = valueSlices(plan);
  const slices = BLOCK_ROWS / valueKeys;
  const add = (r: number, c: number, j: number) =>
    `o${r}_${c} = fma(vec4<f32>(p${r}.${component(j)}), v${c}, o${r}_${c});`;
  const step = (four: number) => /* wgsl */ `
      {
        ${unroll(ownRows, (r) => `let p${r} = weights[slice][${four}].groups[rowGroup].rows[${r}];`)}
        ${
    unroll(4, (j) =>
      /* wgsl */ `{
          ${unroll(ownVecs, (c) => `let v${c} = values[${4 * four + j}][${c}][lane];`)}
          ${unroll(ownRows, (r) => unroll(ownVecs, (c) => add(r, c, j)))}
        }`)
  }
      }`;
  return /* wgsl */ `
    for (var slice = 0u; slice < ${slices}u; slice++) {
      ${values.put}
      workgroupBarrier();
      let next = min(slice + 1u, ${slices - 1}u);
      ${values.askAgain("next")}
      ${unroll(valueKeys / 4, step)}
      workgroupBarrier();
    }`;
}

/** The sums of a row's lanes meet where their maxima met. */
function storeWgsl(plan: Plan): string {
  const { vecs, group, ownVecs, usedRows, ownRows } = plan;
  const put = (r: number, c: number) => /* wgsl */ `
      if (lane + ${c * LANES}u < ${vecs}u) { outO[state * ${vecs}u + lane + ${c * LANES}u] = o${r}_${c} * share; }`;
  const store = (r: number) => /* wgsl */ `
  {
    let row = rowGroup * ${ownRows}u + ${r}u;
    if (row < ${usedRows}u && firstToken + row / ${group}u <= lastToken) {
      let state = ${stateOf("row", plan)};
      let mass = dot(${overLanes(r, (a, b) => `${a} + ${b}`)}, vec4<f32>(1.0));
      let share = select(0.0, 1.0 / max(mass, 1e-30), mass > 0.0);${unroll(ownVecs, (c) => put(r, c))}
      let lse = (top${r} + log2(max(mass, 1e-30))) * ${Math.LN2};
      if (lane == 0u) { outLse[state] = select(${EMPTY_LSE}f, lse, mass > 0.0); }
    }
  }`;
  return /* wgsl */ `
  workgroupBarrier();
  ${unroll(ownRows, (r) => `maxima[rowGroup][${r}][lane / 4u][lane % 4u] = mass${r};`)}
  workgroupBarrier();${unroll(ownRows, store)}`;
}
