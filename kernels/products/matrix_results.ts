/**
 * What happens to the sums of a product on matrix units: they start from what is in y, and are stored there; or pairs
 * of them, a gate and what it gates, become one value.
 */

import { Fragments } from "../matrix_wgsl.ts";
import { storeFour } from "../rows.ts";
import { unroll } from "../wgsl.ts";
import { eachFragment, type MatrixPlan, type MatrixProduct } from "./matrix_product_plan.ts";
import type { ProductGate } from "./product.ts";

/** Results pass through here, a fragment of each subgroup at a time: those at an edge, and those that are gated in pairs. */
export function edgeArray({ shape: { m, n }, gate }: MatrixProduct, { subgroups }: MatrixPlan): string {
  const type = gate === undefined ? `f32, ${subgroups * m * n}` : `vec4<f32>, ${subgroups * 2 * m * n / 4}`;
  return `var<workgroup> edge: array<${type}>;`;
}

/** Where a fragment of results lies in y. */
function resultPlace(
  { shape, tile }: MatrixProduct,
  i: number,
  j: number,
): { row: string; output: string; at: string } {
  const row = `firstRow + ownRow + ${i * shape.m}u`;
  const output = `firstOutput + ownColumn * ${tile.subgroupOutputs}u + ${j * shape.n}u`;
  return { row, output, at: `(${row}) * params.weightRows + params.firstRow + ${output}` };
}

/** Statements for each result of a fragment that lies within y: `value` is its place in `edge`, `at` its place in y. */
function eachEdgeResult(
  { shape, subgroupSize }: MatrixProduct,
  fragment: { row: string; output: string },
  body: string,
) {
  const size = shape.m * shape.n;
  return `
          for (var i = lane; i < ${size}u; i += ${subgroupSize}u) {
            let row = ${fragment.row} + i / ${shape.n}u;
            let output = ${fragment.output} + i % ${shape.n}u;
            let value = subgroup * ${size}u + i;
            let at = row * params.weightRows + params.firstRow + output;
            if (row < params.rows && output < width) { ${body} }
          }`;
}

/** Whether all of a workgroup's results lie within y. */
function isWhole({ tile }: MatrixProduct): string {
  return `firstRow + ${tile.rows}u <= params.rows && firstOutput + ${tile.outputs}u <= width`;
}

/** The sums start from what is in y, at an edge as within: the order of additions must not depend on the number of rows. */
export function loadResults(variant: MatrixProduct, plan: MatrixPlan): string {
  const write = new Fragments(variant.shape);
  const { m, n } = variant.shape;
  return `if (${isWhole(variant)}) {
          ${
    eachFragment(plan, (i, j) =>
      `sum${i}_${j} = ${
        write.loadSums({ array: "y", at: resultPlace(variant, i, j).at, stride: "params.weightRows" })
      };`)
  }
        } else {
          ${
    eachFragment(plan, (i, j) => `
          ${eachEdgeResult(variant, resultPlace(variant, i, j), "edge[value] = y[at];")}
          workgroupBarrier();
          sum${i}_${j} = ${write.loadSums({ array: "edge", at: `subgroup * ${m * n}u`, stride: `${n}u` })};
          workgroupBarrier();`)
  }
        }`;
}

/** Stores the sums to y. */
export function storeResults(variant: MatrixProduct, plan: MatrixPlan): string {
  const write = new Fragments(variant.shape);
  const { m, n } = variant.shape;
  return `if (${isWhole(variant)}) {
          ${
    eachFragment(plan, (i, j) =>
      write.storeSums(
        { array: "y", at: resultPlace(variant, i, j).at, stride: "params.weightRows" },
        `sum${i}_${j}`,
      ))
  }
        } else {
          ${
    eachFragment(plan, (i, j) => `
          workgroupBarrier();
          ${write.storeSums({ array: "edge", at: `subgroup * ${m * n}u`, stride: `${n}u` }, `sum${i}_${j}`)}
          workgroupBarrier();
          ${eachEdgeResult(variant, resultPlace(variant, i, j), "y[at] = edge[value];")}`)
  }
        }`;
}

/** Stores activation(gate) · up: a subgroup's gates are the first half of its outputs, in the order of the others. */
export function storeGated(variant: MatrixProduct, { fragments }: MatrixPlan, { form }: ProductGate): string {
  const { shape: { m, n }, tile, subgroupSize } = variant;
  const write = new Fragments(variant.shape);
  const fours = m * n / 4;
  const put = (sums: string, first: number) =>
    write.storeSums({ array: "edge", at: `subgroup * ${2 * fours}u + ${first}u`, stride: `${n / 4}u` }, sums);
  const stored = { value: `gated(edge[value], edge[value + ${fours}u])`, at: "row * (width / 4u) + four" };
  return unroll(fragments.rows, (i) =>
    unroll(fragments.outputs / 2, (j) => `
        workgroupBarrier();
        ${put(`sum${i}_${j}`, 0)}
        ${put(`sum${i}_${fragments.outputs / 2 + j}`, fours)}
        workgroupBarrier();
        for (var i = lane; i < ${fours}u; i += ${subgroupSize}u) {
          let row = firstRow + ownRow + ${i * m}u + i / ${n / 4}u;
          let four = (firstOutput + ownColumn * ${tile.subgroupOutputs / 2}u + ${j * n}u) / 4u + i % ${n / 4}u;
          let value = subgroup * ${2 * fours}u + i;
          if (row < params.rows && four < width / 4u) {
            ${storeFour(form, "y", stored)}
          }
        }`));
}
