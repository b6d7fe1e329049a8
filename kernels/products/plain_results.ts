/**
 * What the products without matrix units have in common: operands, rows of the weight, and how one result is stored. How
 * they share out and add what they multiply is each kernel's business.
 */

import { placeBindings } from "../attention/place_heads.ts";
import type { BindingSpec, KernelSpec } from "../pipeline.ts";
import type { ProductForm } from "../rows.ts";
import { reads, writes } from "../wgsl.ts";
import { isPaired, pairedRow, type Pairing, resultParams } from "./paired_results.ts";
import { PRODUCT_PARAMS } from "./product.ts";

/** Bindings and parameters; given are the store types of the weight and of rows. */
export function plainOperands(
  pairing: Pairing<ProductForm>,
  { weights, rows = "array<vec4<f32>>" }: { readonly weights: string; readonly rows?: string },
): Pick<KernelSpec, "bindings" | "params"> {
  const { gate, heads } = pairing;
  const y = writes("y", gate?.form === "digits" ? "array<u32>" : "array<f32>");
  const results: readonly BindingSpec[] = heads === undefined ? [y] : placeBindings(heads);
  return {
    bindings: [reads("w", weights), reads("x", rows), ...results],
    params: [...PRODUCT_PARAMS, ...resultParams(pairing)],
  };
}

/** Results of a workgroup for each input row, of so many sums. */
export function resultsOf(pairing: Pairing<ProductForm>, sums: number): number {
  return isPaired(pairing) ? sums / 2 : sums;
}

/** WGSL of the weight's row that is row `row` of a workgroup of so many results. It reads `first_n` and `width`. */
export function weightRow(pairing: Pairing<ProductForm>, row: string, results: number): string {
  if (!isPaired(pairing)) return `min(first_n + ${row}, width - 1u)`;
  return pairedRow(pairing, row, { first: "first_n", count: results, all: "width" });
}

/** Statements that store a result, of a sum and where there is a gate of the one that it gates. They read `m`, `n` and `width`. */
export function storeResult(
  { accumulate, gate }: Pick<Pairing<ProductForm>, "gate"> & { readonly accumulate: boolean },
  [first, second]: readonly [first: string, second: string],
): string {
  if (gate !== undefined) return `y[m * width + n] = gated(vec4<f32>(${first}), vec4<f32>(${second})).x;`;
  return `let at = m * params.weightRows + params.firstRow + n;
            y[at] = ${accumulate ? "y[at] + " : ""}${first};`;
}
