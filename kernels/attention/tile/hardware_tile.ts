/**
 * The WGSL of the tile for GPUs: two register-tiled products for each block of KV rows, with queries, keys or values, and
 * weights in workgroup memory. A thread owns a few query rows, and of each block some keys, of the output some dimensions.
 * Neighbouring threads read neighbouring vectors, so that reads of workgroup memory do not collide.
 * Knows one workgroup's work; `prefill_attention.ts` decides how many there are.
 */

import { EMPTY_LSE, HALVES_WGSL, type HeadShape, kvAddressWgsl } from "../kv_pages.ts";
import { ROW_TABLE_WGSL } from "../row_table.ts";
import { component, unroll } from "../../wgsl.ts";

const ROW_GROUPS = 8;
const KEY_GROUPS = 8;
const THREADS = ROW_GROUPS * KEY_GROUPS;
/** Longer heads have tiles of half as many rows: their outputs would not stay in registers. */
const LONG_HEAD = 128;

/** What distinguishes variants. */
export interface HardwareTile extends HeadShape {
  /** KV rows in workgroup memory at a time; 32 takes more than 32 KiB at headDim 128, and 16 at 256. */
  readonly blockRows: 8 | 16 | 32;
}

/** Query rows (token, head) of a workgroup: a few for each of the row groups. */
function tileRowsOf({ headDim }: Pick<HeadShape, "headDim">): number {
  return headDim > LONG_HEAD ? 16 : 32;
}

/** Tokens of one tile: as many as have all their heads of a group in it. */
export function hardwareTileTokens({ heads, kvHeads, headDim }: HeadShape): number {
  return Math.max(1, Math.floor((tileRowsOf({ headDim }) * kvHeads) / heads));
}

/** Bytes of workgroup memory that a variant takes. */
export function hardwareTileBytes({ headDim, blockRows }: HardwareTile): number {
  const tileRows = tileRowsOf({ headDim });
  const vectors = (headDim / 4) * (tileRows + blockRows + 1) + (blockRows / 4) * tileRows;
  return vectors * 16 + tileRows * KEY_GROUPS * 4;
}

/** Numbers that follow from the options. */
interface Plan extends HardwareTile {
  readonly group: number;
  readonly tileRows: number;
  /** Query rows of a thread. */
  readonly ownRows: number;
  /** Query rows that are used; the rest repeats the last one. */
  readonly usedRows: number;
  /** Vectors of four dimensions in a row. */
  readonly vecs: number;
  /** Distance of two vectors of a key in workgroup memory: one more than keys, against collisions. */
  readonly keyStride: number;
  /** Keys of a thread in a block. */
  readonly ownKeys: number;
  /** Output vectors of a thread in a row. */
  readonly ownVecs: number;
}

function planOf(options: HardwareTile): Plan {
  const { heads, kvHeads, headDim, blockRows } = options;
  const group = heads / kvHeads;
  const vecs = headDim / 4;
  const tileRows = tileRowsOf(options);
  return {
    ...options,
    group,
    tileRows,
    ownRows: tileRows / ROW_GROUPS,
    usedRows: hardwareTileTokens(options) * group,
    vecs,
    keyStride: blockRows + 1,
    ownKeys: blockRows / KEY_GROUPS,
    ownVecs: Math.ceil(vecs / KEY_GROUPS),
  };
}

/** WGSL of the kernel. Bindings: q, k, v, pageTable, rowTable, outO, outLse; parameters: firstRow, rows, maxPages, scale. */
export function hardwareTileWgsl(options: HardwareTile): string {
  const plan = planOf(options);
  const { blockRows, vecs, tileRows, ownRows } = plan;
  const tokens = hardwareTileTokens(options);
  return /* wgsl */ `
${ROW_TABLE_WGSL}${kvAddressWgsl(options, 8)}${HALVES_WGSL}
var<workgroup> query: array<vec4<f32>, ${vecs * tileRows}>;
var<workgroup> tile: array<vec4<f32>, ${vecs * plan.keyStride}>;
var<workgroup> weights: array<vec4<f32>, ${(blockRows / 4) * tileRows}>;
var<workgroup> maxima: array<vec4<f32>, ${(tileRows * KEY_GROUPS) / 4}>;

fn largest(four: vec4<f32>) -> f32 { return max(max(four.x, four.y), max(four.z, four.w)); }

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let kvHead = workgroup.y;
  let firstToken = workgroup.x * ${tokens}u;
  let lastToken = min(firstToken + ${tokens}u, params.rows) - 1u;
  let first = readRow(params.firstRow + firstToken);
  let last = readRow(params.firstRow + lastToken);
  let rowGroup = thread / ${KEY_GROUPS}u;
  let keyGroup = thread % ${KEY_GROUPS}u;
${loadQueriesWgsl(plan)}
${unroll(ownRows, (r) => ownRowWgsl(r, plan))}
  let end = (last.kvLimit + ${blockRows - 1}u) / ${blockRows}u;
  for (var block = first.kvFrom / ${blockRows}u; block < end; block++) {
    let start = block * ${blockRows}u;
    let address = kvAddress(last.sequenceSlot, start, kvHead);
${loadTileWgsl("k", plan)}
    workgroupBarrier();
${scoresWgsl(plan)}
    workgroupBarrier();
${softmaxWgsl(plan)}
${loadTileWgsl("v", plan)}
    workgroupBarrier();
${valuesWgsl(plan)}
    workgroupBarrier();
  }
${storeWgsl(plan)}
}
`;
}

/** The state (row of the output, head) of a row of the tile. */
function stateOf(row: string, { heads, group, usedRows }: Plan): string {
  const used = `min(${row}, ${usedRows - 1}u)`;
  return `(params.firstRow + min(firstToken + ${used} / ${group}u, lastToken)) * ${heads}u + kvHead * ${group}u + ${used} % ${group}u`;
}

function loadQueriesWgsl(plan: Plan): string {
  const { vecs, tileRows } = plan;
  return /* wgsl */ `
  for (var i = thread; i < ${vecs * tileRows}u; i += ${THREADS}u) {
    let row = i / ${vecs}u;
    let vec = i % ${vecs}u;
    query[vec * ${tileRows}u + row] = params.scale * q[(${stateOf("row", plan)}) * ${vecs}u + vec];
  }`;
}

/** Rows of a thread lie `ROW_GROUPS` apart. */
function ownRowWgsl(r: number, plan: Plan): string {
  const { group, usedRows, ownVecs } = plan;
  return /* wgsl */ `
  let row${r} = rowGroup + ${r * ROW_GROUPS}u;
  let token${r} = firstToken + min(row${r}, ${usedRows - 1}u) / ${group}u;
  let entry${r} = readRow(params.firstRow + min(token${r}, lastToken));
  var top${r} = ${EMPTY_LSE}f;
  var mass${r} = 0.0;
  ${unroll(ownVecs, (c) => `var o${r}_${c} = vec4<f32>();`)}`;
}

/** Keys are laid out by dimension, since products run over keys; values by row. */
function loadTileWgsl(source: "k" | "v", { headDim, blockRows, vecs, keyStride }: Plan): string {
  const pieces = headDim / 8;
  const [at, next] = source === "k"
    ? [`2u * piece * ${keyStride}u + key`, keyStride]
    : [`key * ${vecs}u + 2u * piece`, 1];
  return /* wgsl */ `
    for (var i = thread; i < ${blockRows * pieces}u; i += ${THREADS}u) {
      let words = ${source}[address + i];
      let key = i / ${pieces}u;
      let piece = i % ${pieces}u;
      tile[${at}] = low(words);
      tile[${at} + ${next}u] = high(words);
    }`;
}

/** Scores of a thread's rows and keys, and their maxima for the other threads of the row group. */
function scoresWgsl(plan: Plan): string {
  const { vecs, keyStride, ownKeys, tileRows, ownRows: rows } = plan;
  const keys = ownKeys;
  const steps = vecs % 4 === 0 ? 4 : 2;
  const step = (u: number) => /* wgsl */ `
      {
        ${unroll(rows, (r) => `let q${r} = query[(vec + ${u}u) * ${tileRows}u + row${r}];`)}
        ${unroll(keys, (j) => `let k${j} = tile[(vec + ${u}u) * ${keyStride}u + keyGroup + ${j * KEY_GROUPS}u];`)}
        ${unroll(rows, (r) => unroll(keys, (j) => `s${r}_${j} += dot(q${r}, k${j});`))}
      }`;
  const mask = (r: number, j: number) => /* wgsl */ `
    s${r}_${j} = select(${EMPTY_LSE}f, s${r}_${j}, key${j} >= entry${r}.kvFrom && key${j} < entry${r}.kvLimit);`;
  const own = (r: number) => Array.from({ length: keys }, (_, j) => `s${r}_${j}`).reduce((a, b) => `max(${a}, ${b})`);
  return /* wgsl */ `
    ${unroll(rows, (r) => unroll(keys, (j) => `var s${r}_${j} = 0.0;`))}
    for (var vec = 0u; vec < ${vecs}u; vec += ${steps}u) {${unroll(steps, step)}
    }
    ${unroll(keys, (j) => `let key${j} = start + keyGroup + ${j * KEY_GROUPS}u;`)}
    ${unroll(rows, (r) => unroll(keys, (j) => mask(r, j)))}
    ${unroll(rows, (r) => `maxima[row${r} * ${KEY_GROUPS / 4}u + keyGroup / 4u][keyGroup % 4u] = ${own(r)};`)}`;
}

/** From scores to weights; a block that the row cannot see changes no bit of its state. A thread sums its own keys. */
function softmaxWgsl({ ownKeys, ownVecs, tileRows, ownRows }: Plan): string {
  return unroll(ownRows, (r) => {
    const weights = unroll(ownKeys, (j) => /* wgsl */ `
    let p${r}_${j} = select(exp(s${r}_${j} - raised${r}), 0.0, s${r}_${j} <= ${EMPTY_LSE}f);
    weights[${j * 2 * tileRows}u + keyGroup / 4u * ${tileRows}u + row${r}][keyGroup % 4u] = p${r}_${j};`);
    const sum = Array.from({ length: ownKeys }, (_, j) => `p${r}_${j}`).join(" + ");
    return /* wgsl */ `
    let raised${r} = max(top${r}, largest(max(maxima[row${r} * 2u], maxima[row${r} * 2u + 1u])));
    let factor${r} = select(exp(top${r} - raised${r}), 1.0, top${r} == raised${r});
    top${r} = raised${r};${weights}
    mass${r} = mass${r} * factor${r} + (${sum});
    ${unroll(ownVecs, (c) => `o${r}_${c} *= factor${r};`)}`;
  });
}

function valuesWgsl({ vecs, blockRows, ownVecs, tileRows, ownRows: rows }: Plan): string {
  const columns = ownVecs;
  const vecAt = (c: number) =>
    vecs % KEY_GROUPS === 0 ? `${c * KEY_GROUPS}u + keyGroup` : `min(${c * KEY_GROUPS}u + keyGroup, ${vecs - 1}u)`;
  const step = (key: number) => /* wgsl */ `
      {
        ${unroll(columns, (c) => `let v${c} = tile[(4u * four + ${key}u) * ${vecs}u + ${vecAt(c)}];`)}
        ${unroll(rows, (r) => unroll(columns, (c) => `o${r}_${c} += p${r}.${component(key)} * v${c};`))}
      }`;
  return /* wgsl */ `
    for (var four = 0u; four < ${blockRows / 4}u; four++) {
      ${unroll(rows, (r) => `let p${r} = weights[four * ${tileRows}u + row${r}];`)}${unroll(4, step)}
    }`;
}

/** The sums of a row's threads meet where their maxima met. */
function storeWgsl(plan: Plan): string {
  const { vecs, ownVecs, usedRows, ownRows: rows } = plan;
  const put = (r: number) => `maxima[row${r} * 2u + keyGroup / 4u][keyGroup % 4u] = mass${r};`;
  const store = (r: number, c: number) => /* wgsl */ `
    if (keyGroup + ${c * KEY_GROUPS}u < ${vecs}u) { outO[state * ${vecs}u + keyGroup + ${
    c * KEY_GROUPS
  }u] = o${r}_${c} * share; }`;
  return /* wgsl */ `
  ${unroll(rows, put)}
  workgroupBarrier();
  ${
    unroll(rows, (r) => /* wgsl */ `
  if (row${r} < ${usedRows}u && token${r} <= lastToken) {
    let state = ${stateOf(`row${r}`, plan)};
    let mass = dot(maxima[row${r} * 2u] + maxima[row${r} * 2u + 1u], vec4<f32>(1.0));
    let share = select(0.0, 1.0 / max(mass, 1e-30), mass > 0.0);${unroll(ownVecs, (c) => store(r, c))}
    if (keyGroup == 0u) { outLse[state] = select(${EMPTY_LSE}f, top${r} + log(max(mass, 1e-30)), mass > 0.0); }
  }`)
  }`;
}
