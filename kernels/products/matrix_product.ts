/**
 * The product on matrix units: a workgroup computes a tile of results from slices of both operands in workgroup memory,
 * each subgroup a part of it, while the next slices are on their way from storage. Every result is added in ascending k,
 * whatever the tile: a row's bits do not depend on the tile, nor on other rows.
 */

import { Fragments, HALVES_AN_ELEMENT } from "../matrix_wgsl.ts";
import type { KernelSpec } from "../pipeline.ts";
import { writesRows } from "../rows.ts";
import { halvesOfEight } from "../weights/halves_of_eight.ts";
import { declareEight, fetchEight } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, unroll, writes } from "../wgsl.ts";
import { eachFragment, type MatrixPlan, matrixPlanOf, type MatrixProduct } from "./matrix_product_plan.ts";
import { edgeArray, loadResults, storeGated, storeResults } from "./matrix_results.ts";
import { productGateWgsl } from "./product.ts";

/** Grid: one workgroup for each tile, made by `spread`; tiles of the same weight rows are neighbours. */
export function matrixProduct(variant: MatrixProduct): KernelSpec {
  const { gate } = variant;
  return {
    needs: ["f16", "matrix"],
    bindings: [
      reads("w", "array<vec4<u32>>"),
      reads("x", "array<vec4<u32>>"),
      gate === undefined ? writes("y", "array<f32>") : writesRows("y", gate.form),
    ],
    params: ["rows", "partRows", "firstRow", "weightRows", "eights"].map((name) => [name, "u32"] as const),
    source: source(variant, matrixPlanOf(variant)),
  };
}

function source(variant: MatrixProduct, plan: MatrixPlan): string {
  const { tile, accumulate, gate, subgroupSize } = variant;
  const { slice, threads, across, results } = plan;
  const write = new Fragments(variant.shape);
  return /* wgsl */ `
      ${gate === undefined ? HALF_PACKING_WGSL : productGateWgsl(gate)}
      var<workgroup> xs: array<vec4<u32>, ${tile.rows * slice.stride}>;
      var<workgroup> ws: array<vec4<u32>, ${tile.outputs * slice.stride}>;
      ${edgeArray(variant, plan)}

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let tile = ${GROUP_INDEX};
        let tilesAlongRows = (params.rows + ${tile.rows - 1}u) / ${tile.rows}u;
        let firstRow = (tile % tilesAlongRows) * ${tile.rows}u;
        let width = params.partRows${gate === undefined ? "" : " / 2u"};
        let firstOutput = (tile / tilesAlongRows) * ${results}u;
        if (firstOutput >= width) { return; }
        let subgroup = t / ${subgroupSize}u;
        let lane = t % ${subgroupSize}u;
        let ownRow = (subgroup / ${across}u) * ${tile.subgroupRows}u;
        let ownColumn = subgroup % ${across}u;
        ${eachFragment(plan, (i, j) => write.zeroSums(`sum${i}_${j}`))}
        ${accumulate ? loadResults(variant, plan) : ""}
        ${sliceOffsets(variant, plan)}
        ${loadSlices(variant, plan, "0u")}
        for (var k = 0u; k < params.eights; k += ${slice.elements}u) {
          workgroupBarrier();
          ${storeSlices(variant, plan)}
          workgroupBarrier();
          let next = k + ${slice.elements}u;
          if (next < params.eights) {
            ${loadSlices(variant, plan, "next")}
          }
          ${multiplySlices(variant, plan)}
        }
        ${gate === undefined ? storeResults(variant, plan) : storeGated(variant, plan, gate)}
      }`;
}

/** Elements that a thread brings of each operand's slice. */
function roundsOf({ tile }: MatrixProduct, { slice, threads }: MatrixPlan): { x: number; w: number } {
  const x = tile.rows * slice.elements / threads;
  const w = tile.outputs * slice.elements / threads;
  if (!Number.isInteger(x) || !Number.isInteger(w)) {
    throw new RangeError(`Cannot make a matrix product: ${threads} threads do not divide the slices of its tile`);
  }
  return { x, w };
}

/** Where a thread's elements lie in storage at k = 0; rows beyond the last repeat it, and are not stored. */
function sliceOffsets(variant: MatrixProduct, plan: MatrixPlan): string {
  const { slice, threads } = plan;
  const rounds = roundsOf(variant, plan);
  const row = (i: number) => `(t + ${i * threads}u) / ${slice.elements}u`;
  const within = (i: number) => `(t + ${i * threads}u) % ${slice.elements}u`;
  const ofX = (i: number) =>
    `let atX${i} = min(firstRow + ${row(i)}, params.rows - 1u) * params.eights + ${within(i)}; var x${i}: vec4<u32>;`;
  return `${unroll(rounds.x, ofX)}
        ${
    unroll(rounds.w, (i) =>
      `let atW${i} = (${weightRow(variant, row(i))}) * params.eights + ${within(i)}; ${
        declareEight(variant.dtype, `w${i}`)
      }`)
  }`;
}

/** The row of the weight that is a slice's row. */
function weightRow({ tile: { subgroupOutputs }, gate }: MatrixProduct, row: string): string {
  if (gate === undefined) return `min(firstOutput + ${row}, width - 1u)`;
  const half = subgroupOutputs / 2;
  const output = `firstOutput + ${row} / ${subgroupOutputs}u * ${half}u + ${row} % ${half}u`;
  return `${row} / ${half}u % 2u * width + min(${output}, width - 1u)`;
}

function loadSlices(variant: MatrixProduct, plan: MatrixPlan, k: string): string {
  const rounds = roundsOf(variant, plan);
  return `${unroll(rounds.x, (i) => `x${i} = x[atX${i} + ${k}];`)}
        ${unroll(rounds.w, (i) => fetchEight(variant.dtype, "w", { into: `w${i}`, index: `atW${i} + ${k}` }))}`;
}

function storeSlices(variant: MatrixProduct, plan: MatrixPlan): string {
  const { slice, threads } = plan;
  const rounds = roundsOf(variant, plan);
  const place = (i: number) =>
    `((t + ${i * threads}u) / ${slice.elements}u) * ${slice.stride}u + (t + ${i * threads}u) % ${slice.elements}u`;
  return `${unroll(rounds.x, (i) => `xs[${place(i)}] = x${i};`)}
          ${unroll(rounds.w, (i) => `{ ${halvesOfEight(variant.dtype, `w${i}`, `ws[${place(i)}]`)} }`)}`;
}

function multiplySlices({ shape, tile }: MatrixProduct, { slice, fragments }: MatrixPlan): string {
  const write = new Fragments(shape);
  const stride = `${slice.stride}u`;
  const at = (row: string, k: number) => `(${row}) * ${slice.stride}u + ${k * shape.k / HALVES_AN_ELEMENT}u`;
  return unroll(fragments.depth, (k) =>
    `{
            ${
      unroll(
        fragments.rows,
        (i) => `let rows${i} = ${write.left({ array: "xs", at: at(`ownRow + ${i * shape.m}u`, k), stride })};`,
      )
    }
            ${
      unroll(fragments.outputs, (j) =>
        `{
              let weight = ${
          write.right(
            { array: "ws", at: at(`ownColumn * ${tile.subgroupOutputs}u + ${j * shape.n}u`, k), stride },
            "columns",
          )
        };
              ${unroll(fragments.rows, (i) => write.accumulate(`sum${i}_${j}`, `rows${i}`, "weight"))}
            }`)
    }
          }`);
}
