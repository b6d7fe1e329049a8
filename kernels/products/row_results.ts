/**
 * What happens to the sums of a product of few rows on matrix units: they are stored to y, or added to it; or pairs of
 * them, a gate and what it gates, become one value.
 */

import { Fragments } from "../matrix_wgsl.ts";
import { storeFour } from "../rows.ts";
import { unroll } from "../wgsl.ts";
import { isPaired, placeFourWgsl } from "./paired_results.ts";
import { type RowPlan, rowPlanOf, type RowProduct } from "./row_tile.ts";

/** WGSL of `sum_of(part)`: the sums of all shares in their order, of a part of the first. */
export function sumOfWgsl(variant: RowProduct): string {
  const { shape, shares } = variant;
  const share = rowPlanOf(variant).outputs * shape.n / 4;
  const part = (s: number) => `bitcast<f32>(ws[part / 4u + ${s * share}u][part % 4u])`;
  return `fn sum_of(part: u32) -> f32 {
        var sum = ${part(0)};
        ${unroll(shares - 1, (s) => `sum += ${part(s + 1)};`)}
        return sum;
      }`;
}

/** Statements that bring the sums of all shares together, column by column, and store the results. */
export function storeSums(variant: RowProduct): string {
  const { shape, shares, tile } = variant;
  const { outputs, columns } = rowPlanOf(variant);
  const write = new Fragments(shape);
  const four = shape.n / 4;
  const place = (o: number) => ({
    array: "ws",
    at: `((beside * ${shares}u + share) * ${outputs}u + ${o * shape.m}u) * ${four}u`,
    stride: `${four}u`,
  });
  return unroll(columns, (c) =>
    `workgroupBarrier();
        ${unroll(tile.outputs, (o) => write.storeSums(place(o), `sum${o}_${c}`))}
        workgroupBarrier();
        ${isPaired(variant) ? storePaired(variant, c) : storeResults(variant, c)}`);
}

/** The rows whose sums meet at a time: one column fragment of each subgroup beside another. WGSL of the i-th. */
function rowsOf({ shape: { n }, shares, tile }: RowProduct, plan: RowPlan, column: number) {
  const beside = (i: string) => `${i} / ${n}u`;
  return {
    count: Math.min(n, tile.rows) * tile.beside,
    row: (i: string) => `firstInput + ${beside(i)} * ${plan.columns * n}u + ${column * n}u + ${i} % ${n}u`,
    /** Where the sum of an output begins, in the first share. */
    part: (i: string, output: string) =>
      `${beside(i)} * ${shares * plan.outputs * n}u + (${output}) * ${n}u + ${i} % ${n}u`,
  };
}

/** What is in y is added last. */
function storeResults(variant: RowProduct, column: number): string {
  const plan = rowPlanOf(variant);
  const { outputs, threads } = plan;
  const rows = rowsOf(variant, plan, column);
  return `for (var i = t; i < ${outputs * rows.count}u; i += ${threads}u) {
          let row = ${rows.row(`i / ${outputs}u`)};
          let output = i % ${outputs}u;
          if (row < params.rows && firstOutput + output < width) {
            let at = row * params.weightRows + params.firstRow + firstOutput + output;
            let sum = sum_of(${rows.part(`i / ${outputs}u`, "output")});
            y[at] = ${variant.accumulate ? "y[at] + sum" : "sum"};
          }
        }`;
}

/** Four neighbouring pairs a thread. */
function storePaired(variant: RowProduct, column: number): string {
  const plan = rowPlanOf(variant);
  const { results, threads } = plan;
  const fours = results / 4;
  const rows = rowsOf(variant, plan, column);
  const { n } = variant.shape;
  const sums = (first: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((c) => `sum_of(part + ${(first + c) * n}u)`).join(", ")})`;
  return `for (var i = t; i < ${fours * rows.count}u; i += ${threads}u) {
          let row = ${rows.row(`i / ${fours}u`)};
          let four = i % ${fours}u;
          if (row < params.rows && firstOutput + 4u * four < width) {
            let part = ${rows.part(`i / ${fours}u`, "4u * four")};
            ${storeFourPairs(variant, [sums(0), sums(results)])}
          }
        }`;
}

function storeFourPairs({ gate, heads }: RowProduct, sums: readonly [string, string]): string {
  if (heads !== undefined) return placeFourWgsl(heads, { row: "row", pair: "firstOutput + 4u * four", sums });
  const place = { at: "row * (width / 4u) + firstOutput / 4u + four" };
  return storeFour(gate?.form ?? "f32", "y", { ...place, value: `gated(${sums.join(", ")})` });
}
