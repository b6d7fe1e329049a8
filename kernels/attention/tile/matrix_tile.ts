/**
 * The WGSL of the tile on matrix units, for chunks of prompts and for decode rows. For each block of KV rows the subgroups compute
 * scores into workgroup memory, threads turn them into weights (softmax in f32), and the subgroups add weights times values to
 * outputs that stay in registers. The outputs of a block are computed together with the scores of the next one: so a block takes
 * three barriers, and between two of them there is enough to do. Elements of outputs cannot be touched there: a row keeps the maximum
 * that it has until a score exceeds it by 2^8, which is rare; then the outputs take a turn through workgroup memory. Rows that
 * need no rescaling are multiplied by 1, so that a row's bits do not depend on its neighbours.
 */

import { EMPTY_LSE, kvAddressWgsl } from "../kv_pages.ts";
import { LISTED_BLOCK_WGSL } from "../row_blocks.ts";
import { rescaleWgsl, storeWgsl } from "./matrix_outputs.ts";
import { chunkRowsWgsl, partWgsl, splitRowsWgsl } from "./matrix_rows.ts";
import { massesWgsl, softmaxWgsl } from "./matrix_softmax.ts";
import { Fragments, HALVES_AN_ELEMENT } from "../../matrix_wgsl.ts";
import { type MatrixTile, type Plan, planOf } from "./matrix_tile_plan.ts";
import { ROW_FORM_WGSL } from "../../rows.ts";
import { unroll } from "../../wgsl.ts";

/**
 * WGSL of the kernel. Bindings: q, k, v, pageTable, rowTable, outO, outLse; parameters: firstRow, rows, queryRows, maxPages.
 * With splits: partsO and partsLse before the outputs, the parameter `listed` and a list of blocks as well; where scores are
 * kept, keptScores at the end and the parameters `callRow` and `scoreStride`.
 */
export function matrixTileWgsl(tile: MatrixTile): string {
  const plan = planOf(tile);
  return /* wgsl */ `
${tile.outForm === "f16" ? ROW_FORM_WGSL : ""}
${kvAddressWgsl(tile, HALVES_AN_ELEMENT)}${plan.cut === "chunk" ? "" : LISTED_BLOCK_WGSL + partWgsl(plan.cut)}
${sharedWgsl(plan)}
@diagnostic(off, chromium.subgroup_matrix_uniformity)
@compute @workgroup_size(${plan.threads})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let kvHead = workgroup.y;
  ${plan.cut === "chunk" ? chunkRowsWgsl(plan) : splitRowsWgsl(plan)}
  ${sharesWgsl(plan)}
  ${loadQueries(plan)}
  ${startWgsl(plan)}
  ${firstBlocksWgsl(plan)}
  workgroupBarrier();
  for (var block = begin; block < end; block++) {
    ${blockWgsl(plan)}
  }
  ${outputsWgsl(plan)}
${storeWgsl(plan)}
}
`;
}

/** Memory of the workgroup. */
function sharedWgsl({ tileRows, threads, blockRows, keys, scores, weights }: Plan): string {
  return /* wgsl */ `
var<workgroup> keys: array<vec4<u32>, ${blockRows * keys}>;
var<workgroup> values: array<vec4<u32>, ${blockRows * keys}>;
var<workgroup> scores: array<vec4<f32>, ${tileRows * scores}>;
var<workgroup> weights: array<vec4<u32>, ${tileRows * weights}>;
var<workgroup> meeting: array<f32, ${threads}>;
var<workgroup> factors: array<f32, ${tileRows}>;
var<workgroup> rescale: u32;

fn largest(four: vec4<f32>) -> f32 { return max(max(four.x, four.y), max(four.z, four.w)); }
fn sumOf(four: vec4<f32>) -> f32 { return (four.x + four.y) + (four.z + four.w); }
`;
}

/** Declares what is whose: of outputs and scores a subgroup's, of the softmax a thread's. */
function sharesWgsl(plan: Plan): string {
  const { threadsARow, group, subgroupSize, subgroupRows, split, keyParts, rowParts, elements } = plan;
  return /* wgsl */ `
  let subgroup = thread / ${subgroupSize}u;
  let ownRow = (subgroup / ${split}u) * ${subgroupRows}u;
  let ownPart = subgroup % ${split}u;
  // The row whose softmax this thread takes part in, and its first key there.
  let row = thread / ${threadsARow}u;
  let firstKey = (thread % ${threadsARow}u) * ${plan.ownKeys}u;
  let token = min(firstToken + row / ${group}u, lastToken);
  let visible = rowTable[2u * (params.firstRow + token)].zw;
  // Those whose scores it computes.
  let scoredRow = ownRow + (ownPart / ${keyParts}u) * ${subgroupRows / rowParts}u;
  let queryAt = ((kvHead * params.queryRows + params.firstRow + firstToken) * ${group}u + scoredRow) * ${elements}u;`;
}

/** Nothing is seen yet: outputs and sums are zeros, and no row has a maximum. */
function startWgsl(plan: Plan): string {
  const write = new Fragments(plan.shape);
  return /* wgsl */ `
  ${eachOutput(plan, (i, j) => write.zeroSums(`out${i}_${j}`))}
  var top = ${EMPTY_LSE}f;
  ${massesWgsl(plan.ownKeys)}
  factors[row] = 1.0;
  if (thread == 0u) { rescale = 0u; }
  ${unroll(plan.loads, (i) => `var k${i}: vec4<u32>; var v${i}: vec4<u32>;`)}`;
}

/** Brings the first block's keys and values, and asks for the keys of the second. */
function firstBlocksWgsl(plan: Plan): string {
  const { blockRows } = plan;
  return /* wgsl */ `
  // Where the keys lie that were asked for last; their values are asked for a block later.
  var address = 0u;
  if (begin < end) {
    address = kvAddress(first.x, begin * ${blockRows}u, kvHead);
    ${fetch(plan, "k")}
    ${fetch(plan, "v")}
    ${stage(plan, "keys", "k")}
  }
  if (begin + 1u < end) {
    address = kvAddress(first.x, (begin + 1u) * ${blockRows}u, kvHead);
    ${fetch(plan, "k")}
  }`;
}

/** One turn of the loop: outputs of the block before, scores and softmax of this one, keys of the one after the next. */
function blockWgsl(plan: Plan): string {
  const { blockRows } = plan;
  return /* wgsl */ `
    let start = block * ${blockRows}u;
    // Of the block before; before the first one weights and values are zeros.
    ${outputsWgsl(plan)}
    ${scoresWgsl(plan)}
    workgroupBarrier();
    ${stage(plan, "keys", "k")}
    ${stage(plan, "values", "v")}
    if (block + 1u < end) {
      ${fetch(plan, "v")}
    }
    if (block + 2u < end) {
      address = kvAddress(first.x, start + ${2 * blockRows}u, kvHead);
      ${fetch(plan, "k")}
    }
    ${softmaxWgsl({ ...plan, keepFour: (...four) => plan.keepsScores ? keepFourWgsl(plan, ...four) : "" })}
    // A barrier on both sides of the load: the weights are there.
    if (workgroupUniformLoad(&rescale) == 1u) {
      ${rescaleWgsl(plan)}
    }`;
}

function eachOutput({ fragments }: Plan, piece: (row: number, output: number) => string): string {
  return unroll(fragments.rows, (i) => unroll(fragments.outputs, (j) => piece(i, j)));
}

/** Queries of the rows that it scores stay in registers. Rows beyond the tile's are computed for nothing. */
function loadQueries({ shape, fragments, elements }: Plan): string {
  const write = new Fragments(shape);
  const at = (i: number, d: number) => `queryAt + ${i * shape.m * elements + d * shape.k / HALVES_AN_ELEMENT}u`;
  return unroll(
    fragments.scoredRows,
    (i) =>
      unroll(
        fragments.headDepth,
        (d) => `let query${i}_${d} = ${write.left({ array: "q", at: at(i, d), stride: `${elements}u` })};`,
      ),
  );
}

/** A block lies in one page, its rows back to back. */
function fetch({ loads, threads }: Plan, array: "k" | "v"): string {
  return unroll(loads, (i) => `${array}${i} = ${array}[address + thread + ${i * threads}u];`);
}

function stage({ loads, threads, elements, keys }: Plan, to: "keys" | "values", from: "k" | "v"): string {
  const place = (i: number) =>
    `(thread + ${i * threads}u) / ${elements}u * ${keys}u + (thread + ${i * threads}u) % ${elements}u`;
  return unroll(loads, (i) => `${to}[${place(i)}] = ${from}${i};`);
}

/** Scores, already in units of log2 as the queries carry the scale. */
function scoresWgsl({ shape, fragments, keys, scores, blockRows, keyParts }: Plan): string {
  const write = new Fragments(shape);
  const partKeys = blockRows / keyParts;
  const firstKey = (j: number) => `(ownPart % ${keyParts}u * ${partKeys}u + ${j * shape.n}u)`;
  const key = (j: number, d: number) =>
    write.right({
      array: "keys",
      at: `${firstKey(j)} * ${keys}u + ${d * shape.k / HALVES_AN_ELEMENT}u`,
      stride: `${keys}u`,
    }, "columns");
  const to = (i: number, j: number) => ({
    array: "scores",
    at: `(scoredRow + ${i * shape.m}u) * ${scores}u + ${firstKey(j)} / 4u`,
    stride: `${scores}u`,
  });
  return `{
      ${unroll(fragments.scoredRows, (i) => unroll(fragments.keys, (j) => write.zeroSums(`score${i}_${j}`)))}
      ${
    unroll(fragments.headDepth, (d) =>
      unroll(fragments.keys, (j) =>
        `{
        let key = ${key(j, d)};
        ${unroll(fragments.scoredRows, (i) => write.accumulate(`score${i}_${j}`, `query${i}_${d}`, "key"))}
      }`))
  }
      ${unroll(fragments.scoredRows, (i) => unroll(fragments.keys, (j) => write.storeSums(to(i, j), `score${i}_${j}`)))}
    }`;
}

/** Scores as the plain kernel keeps them: in natural units, of visible rows. */
function keepFourWgsl(
  { heads, group, tokens }: Plan,
  four: string,
  at: string,
  { masked }: { readonly masked: boolean },
): string {
  const place =
    `((params.callRow + token) * ${heads}u + kvHead * ${group}u + row % ${group}u) * params.scoreStride + ${at}`;
  const store = masked
    ? unroll(
      4,
      (c) =>
        `if (${at} + ${c}u >= visible.x && ${at} + ${c}u < visible.y) { keptScores[to][${c}] = ${Math.LN2} * ${four}[${c}]; }`,
    )
    : `keptScores[to] = ${Math.LN2} * ${four};`;
  return `if (row < ${tokens * group}u && firstToken + row / ${group}u <= lastToken) {
        let to = (${place}) / 4u;
        ${store}
      }`;
}

function outputsWgsl({ shape, fragments, keys, weights, headDim, split }: Plan): string {
  const write = new Fragments(shape);
  const weight = (i: number, d: number) =>
    write.left({
      array: "weights",
      at: `(ownRow + ${i * shape.m}u) * ${weights}u + ${d * shape.k / HALVES_AN_ELEMENT}u`,
      stride: `${weights}u`,
    });
  const value = (j: number, d: number) =>
    write.right({
      array: "values",
      at: `${d * shape.k * keys}u + (ownPart * ${headDim / split}u + ${j * shape.n}u) / ${HALVES_AN_ELEMENT}u`,
      stride: `${keys}u`,
    }, "rows");
  return unroll(fragments.blockDepth, (d) =>
    `{
      ${unroll(fragments.rows, (i) => `let weight${i} = ${weight(i, d)};`)}
      ${
      unroll(fragments.outputs, (j) =>
        `{
        let value = ${value(j, d)};
        ${unroll(fragments.rows, (i) => write.accumulate(`out${i}_${j}`, `weight${i}`, "value"))}
      }`)
    }
    }`);
}
