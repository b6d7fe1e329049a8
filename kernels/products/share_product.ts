/**
 * One share of the product of a few dozen rows on matrix units. So many rows are bound by arithmetic, and subgroups that share out k
 * within a workgroup (`row_product.ts`) each have too small a tile for it. Here a workgroup takes one share of k, for a tile
 * as large as those of prompts; sums of all shares go to memory and meet in `share_sums.ts`. Each share is added in the
 * order of the other kernel, and so are the shares: a row has the same bits by either.
 */

import { Fragments, HALVES_AN_ELEMENT } from "../matrix_wgsl.ts";
import type { KernelSpec } from "../pipeline.ts";
import { describeShape } from "../provider.ts";
import { halvesOfEight } from "../weights/halves_of_eight.ts";
import { declareEight, fetchEight } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, unroll, writes } from "../wgsl.ts";
import { HALVES } from "./row_tile.ts";
import { type SharePlan, sharePlanOf, type ShareProduct } from "./share_tile.ts";

/** The kernel's name, which tells all variants apart. */
export function shareProductName(
  { dtype, shape, subgroupSize, shares, depth, tile, ragged }: ShareProduct,
): string {
  return `share_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${shares}×${depth} ${
    Object.values(tile).join("×")
  }${ragged ? " ragged" : ""}`;
}

/**
 * Grid: one workgroup for each share of each block of columns of each block of weight rows, made by `spread`; shares of the same
 * rows are neighbours, as each reads a part of every line. Writes sums as f32 [shares, column fragments, weight rows, n].
 */
export function shareProduct(variant: ShareProduct): KernelSpec {
  const { shape, tile, subgroupSize, shares } = variant;
  const plan = sharePlanOf(variant);
  const { fragments, elements } = plan;
  const write = new Fragments(shape);
  const eachSum = (piece: (output: number, column: number) => string) =>
    unroll(fragments.outputs, (o) => unroll(fragments.columns, (c) => piece(o, c)));
  const slice = `${elements * shares}u`;
  return {
    needs: ["f16", "matrix"],
    bindings: [reads("w", "array<vec4<u32>>"), reads("x", "array<vec4<u32>>"), writes("sums", "array<f32>")],
    params: ["rows", "firstInput", "partRows", "eights", "outputBlocks", "columnBlocks"].map((name) =>
      [name, "u32"] as const
    ),
    source: /* wgsl */ `
      ${HALF_PACKING_WGSL}
      var<workgroup> ws: array<vec4<u32>, ${tile.outputs * plan.stride}>;
      var<workgroup> xs: array<vec4<u32>, ${tile.columns * plan.stride}>;

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${plan.threads}) fn main(${BUILTINS}) {
        let index = ${GROUP_INDEX};
        let share = index % ${shares}u;
        let columnBlock = index / ${shares}u % params.columnBlocks;
        let outputBlock = index / ${shares}u / params.columnBlocks;
        if (outputBlock >= params.outputBlocks) { return; }
        let firstOutput = outputBlock * ${tile.outputs}u;
        let firstColumn = columnBlock * ${tile.columns}u;
        let subgroup = t / ${subgroupSize}u;
        let ownOutput = subgroup / ${plan.across}u * ${tile.subgroupOutputs}u;
        let ownColumn = subgroup % ${plan.across}u * ${tile.subgroupColumns}u;
        ${eachSum((o, c) => write.zeroSums(`sum${o}_${c}`))}
        ${placesWgsl(variant, plan)}
        ${loadWgsl(variant, plan, "0u")}
        for (var first = 0u; first < params.eights; first += ${slice}) {
          workgroupBarrier();
          ${stageWgsl(variant, plan)}
          workgroupBarrier();
          let next = first + ${slice};
          if (next < params.eights) { ${loadWgsl(variant, plan, "next")} }
          ${multiplyWgsl(variant, plan)}
        }
        ${storeWgsl(variant, plan)}
      }`,
  };
}

/** What a thread brings, the i-th of its elements: its place in a staged slice. */
function elementOf({ threads, elements, stride, turn }: SharePlan, i: number) {
  const index = `(t + ${i * threads}u)`;
  return {
    row: `${index} / ${elements}u`,
    turn: `${index} % ${elements}u / ${turn}u`,
    within: `${index} % ${turn}u`,
    to: `${index} / ${elements}u * ${stride}u + ${index} % ${elements}u`,
  };
}

/** Where a thread's elements lie in storage: their rows, and their column at k = 0. Rows beyond the last repeat it. */
function placesWgsl({ dtype, ragged, shares }: ShareProduct, plan: SharePlan): string {
  const column = (i: number) => {
    const { turn, within } = elementOf(plan, i);
    return `(${turn} * ${shares}u + share) * ${plan.turn}u + ${within}`;
  };
  const ofW = (i: number) =>
    `let columnW${i} = ${column(i)};
        let rowW${i} = min(firstOutput + ${elementOf(plan, i).row}, params.partRows - 1u) * params.eights;
        ${declareEight(dtype, `w${i}`)}${ragged ? ` var insideW${i} = true;` : ""}`;
  const ofX = (i: number) =>
    `let columnX${i} = ${column(i)};
        let of${i} = firstColumn + ${elementOf(plan, i).row};
        let input${i} = min(params.firstInput + of${i} / ${HALVES}u, params.rows - 1u);
        let rowX${i} = (input${i} + of${i} % ${HALVES}u * params.rows) * params.eights;
        var x${i}: vec4<u32>;`;
  return `${unroll(plan.weights, ofW)}
        ${unroll(plan.inputs, ofX)}`;
}

/** Beyond the weight's columns anything will do for x, as long as it is a number: it meets zeros. */
function loadWgsl({ dtype, ragged }: ShareProduct, { weights, inputs }: SharePlan, k: string): string {
  const within = (column: string) => ragged ? `min(${column} + ${k}, params.eights - 1u)` : `${column} + ${k}`;
  const ofW = (i: number) => {
    const fetch = fetchEight(dtype, "w", { into: `w${i}`, index: `rowW${i} + ${within(`columnW${i}`)}` });
    return ragged ? `insideW${i} = columnW${i} + ${k} < params.eights; ${fetch}` : fetch;
  };
  return `${unroll(weights, ofW)}
          ${unroll(inputs, (i) => `x${i} = x[rowX${i} + ${within(`columnX${i}`)}];`)}`;
}

function stageWgsl({ dtype, ragged }: ShareProduct, plan: SharePlan): string {
  const ofW = (i: number) => {
    const to = `ws[${elementOf(plan, i).to}]`;
    const store = halvesOfEight(dtype, `w${i}`, to);
    return ragged ? `if (insideW${i}) { ${store} } else { ${to} = vec4<u32>(); }` : `{ ${store} }`;
  };
  return `${unroll(plan.weights, ofW)}
          ${unroll(plan.inputs, (i) => `xs[${elementOf(plan, i).to}] = x${i};`)}`;
}

function multiplyWgsl({ shape }: ShareProduct, { fragments, stride }: SharePlan): string {
  const write = new Fragments(shape);
  const place = (array: string, row: string, k: number) => ({
    array,
    at: `(${row}) * ${stride}u + ${k * shape.k / HALVES_AN_ELEMENT}u`,
    stride: `${stride}u`,
  });
  const column = (c: number, k: number) => write.right(place("xs", `ownColumn + ${c * shape.n}u`, k), "columns");
  return unroll(fragments.depth, (k) =>
    `{
            ${unroll(fragments.columns, (c) => `let column${c} = ${column(c, k)};`)}
            ${
      unroll(fragments.outputs, (o) =>
        `{
              let weight = ${write.left(place("ws", `ownOutput + ${o * shape.m}u`, k))};
              ${unroll(fragments.columns, (c) => write.accumulate(`sum${o}_${c}`, "weight", `column${c}`))}
            }`)
    }
          }`);
}

function storeWgsl({ shape, tile }: ShareProduct, { fragments }: SharePlan): string {
  const write = new Fragments(shape);
  const ofColumn = (c: number) =>
    `{
          let fragment = (share * params.columnBlocks + columnBlock) * ${
      tile.columns / shape.n
    }u + ownColumn / ${shape.n}u + ${c}u;
          let at = (fragment * params.outputBlocks * ${tile.outputs}u + firstOutput + ownOutput) * ${shape.n}u;
          ${
      unroll(fragments.outputs, (o) =>
        write.storeSums(
          { array: "sums", at: `at + ${o * shape.m * shape.n}u`, stride: `${shape.n}u` },
          `sum${o}_${c}`,
        ))
    }
        }`;
  return unroll(fragments.columns, ofColumn);
}
