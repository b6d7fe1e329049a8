/**
 * What becomes of the sums of a product of few rows on matrix units: they are stored to y, or added to it; or pairs of them, a gate
 * and what it gates, become one value.
 */

import { Fragments } from "../matrix_wgsl.ts";
import { storeFour } from "../rows.ts";
import { unroll } from "../wgsl.ts";
import { isPaired, placeFourWgsl } from "./paired_results.ts";
import { HALVES, outputsOf, type RowProduct, threadsOf } from "./row_tile.ts";

/** WGSL of `sum_of(part)`: the sums of all shares in their order, the high halves' and the low ones'. */
export function sumOfWgsl({ shape, tile, shares }: RowProduct): string {
  const size = outputsOf(shape, tile) * shape.n;
  return `fn sum_of(part: u32) -> f32 {
        var high = parts[part];
        var low = parts[part + 1u];
        ${
    unroll(
      shares - 1,
      (s) => `high += parts[part + ${(s + 1) * size}u]; low += parts[part + ${(s + 1) * size + 1}u];`,
    )
  }
        return high + low;
      }`;
}

/** Statements that have the sums of all shares meet, column by column, and store what becomes of them. */
export function storeSums(variant: RowProduct): string {
  const { shape, tile } = variant;
  const write = new Fragments(shape);
  const place = (o: number) => ({
    array: "parts",
    at: `share * ${outputsOf(shape, tile) * shape.n}u + (ownOutput + ${o * shape.m}u) * ${shape.n}u`,
    stride: `${shape.n}u`,
  });
  return unroll(tile.rounds * tile.columns, (i) => {
    const sum = (o: number) => `sum${Math.floor(i / tile.columns)}_${o}_${i % tile.columns}`;
    const firstRow = i * shape.n / HALVES;
    return `workgroupBarrier();
        ${unroll(tile.outputs, (o) => write.storeSums(place(o), sum(o)))}
        workgroupBarrier();
        ${storeColumn(variant, firstRow)}`;
  });
}

/**
 * Statements that store what becomes of a column fragment of sums, the first of them those of row `firstRow` of the workgroup. They
 * read `sum_of`, `firstInput`, `firstOutput` and `width`.
 */
export function storeColumn(variant: RowProduct, firstRow: number): string {
  return isPaired(variant) ? storePaired(variant, firstRow) : storeResults(variant, firstRow);
}

/** What is in y is added last. */
function storeResults(variant: RowProduct, firstRow: number): string {
  const { shape, tile, accumulate } = variant;
  const outputs = outputsOf(shape, tile);
  return `for (var i = t; i < ${outputs * shape.n / HALVES}u; i += ${threadsOf(variant)}u) {
          let row = firstInput + ${firstRow}u + i / ${outputs}u;
          let output = i % ${outputs}u;
          if (row < params.rows && firstOutput + output < width) {
            let at = row * params.weightRows + params.firstRow + firstOutput + output;
            let sum = sum_of(output * ${shape.n}u + i / ${outputs}u * ${HALVES}u);
            y[at] = ${accumulate ? "y[at] + sum" : "sum"};
          }
        }`;
}

/** Four neighbouring pairs a thread. */
function storePaired(variant: RowProduct, firstRow: number): string {
  const { shape, tile } = variant;
  const half = outputsOf(shape, tile) / 2;
  const fours = half / 4;
  const sums = (first: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((c) => `sum_of(part + ${(first + c) * shape.n}u)`).join(", ")})`;
  return `for (var i = t; i < ${fours * shape.n / HALVES}u; i += ${threadsOf(variant)}u) {
          let row = firstInput + ${firstRow}u + i / ${fours}u;
          let four = i % ${fours}u;
          if (row < params.rows && firstOutput + 4u * four < width) {
            let part = four * ${4 * shape.n}u + i / ${fours}u * ${HALVES}u;
            ${storeFourPairs(variant, [sums(0), sums(half)])}
          }
        }`;
}

function storeFourPairs({ gate, heads }: RowProduct, sums: readonly [string, string]): string {
  if (heads !== undefined) return placeFourWgsl(heads, { row: "row", pair: "firstOutput + 4u * four", sums });
  const place = { at: "row * (width / 4u) + firstOutput / 4u + four", fours: "params.rows * (width / 4u)" };
  return storeFour(gate?.form ?? "f32", "y", { ...place, value: `gated(${sums.join(", ")})` });
}
