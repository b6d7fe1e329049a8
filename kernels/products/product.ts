/** What products of either kind are asked for: plain ones, and those of a gate and what it gates. */

import { type HeadPlaces, slotsOf } from "../attention/place_heads.ts";
import { ropeAppend } from "../attention/rope_append.ts";
import { GpuError } from "../errors.ts";
import type { Commands, ParamField } from "../pipeline.ts";
import { expectRows, type ProductForm, ROW_FORM_WGSL, type RowForm, type Rows } from "../rows.ts";
import type { Scratch } from "../scratch.ts";
import { type Activation, gateWgsl, swiglu } from "../swiglu.ts";
import type { Tensor } from "../tensor.ts";
import type { Weight } from "../weights/weight.ts";

/** Parameters of products whose dispatches take some input rows each. */
export const PRODUCT_PARAMS: readonly ParamField[] = [
  "rows",
  "firstInput",
  "partRows",
  "firstRow",
  "weightRows",
  "eights",
]
  .map((name) => [name, "u32"] as const);

/** Input rows of a dispatch at most: two of 8 rows take less time than one of 16, which would leave each thread two weight rows only. */
export const MAX_INPUTS = 8;

/** The narrowest variant that takes so many input rows, or the widest. */
export function inputsFor(rows: number): number {
  return [1, 2, 4].find((inputs) => rows <= inputs) ?? MAX_INPUTS;
}

/** Operands of a product. */
export interface Product {
  readonly weight: Weight;
  /** [rows, weight.cols], best in the form that the plan reads; f32 rows are converted first where it reads another. */
  readonly x: Rows<ProductForm>;
  /** f32 [rows, weight.rows], in a buffer other than `x` */
  readonly y: Tensor;
  readonly rows: number;
  /** Adds to what is in `y`, the residual. @default false */
  readonly accumulate?: boolean;
  /** Working memory for rows of halves. */
  readonly scratch: Scratch;
}

/** Operands of a product whose results are gated: out = activation(x · Gᵀ) · (x · Uᵀ). */
export interface GatedProduct extends Pick<Product, "x" | "rows" | "scratch"> {
  /** The rows of G, then as many of U: [2 · width, cols]; the width is a multiple of 8. */
  readonly weight: Weight;
  readonly activation: Activation;
  /** [rows, width], in any form; as digits the width is a multiple of 32, and the adapter has subgroups of at least eight. */
  readonly out: Rows<ProductForm>;
}

/** Operands of a product whose results are the heads of a layer: q, k and v of each row, placed where attention reads them. */
export interface HeadProduct extends Pick<Product, "weight" | "x" | "rows" | "scratch"> {
  readonly heads: HeadPlaces;
}

/** How a kernel gates its sums, and in which form it stores them: halves on matrix units only, digits by subgroups only. */
export interface ProductGate<Form extends ProductForm = RowForm> {
  readonly activation: Activation;
  readonly form: Form;
}

/**
 * Checks the result of a gated product.
 * @throws {GpuError} `invalid_shape` when the weight is not two of a multiple of 8 rows, or `out` is too small
 */
export function expectGated(op: string, { weight, out, rows }: GatedProduct): void {
  if (weight.rows % 16 !== 0) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch ${op}: ${weight.rows} rows of gate and up are not twice a multiple of 8`,
    );
  }
  expectRows(op, out, { rows, cols: weight.rows / 2 });
}

/** Whether one kernel can read any two rows of a weight, as a gate and what it gates: all lie in its only part. */
export function isGatable({ parts }: Pick<Weight, "parts">): boolean {
  return parts.length === 1;
}

/** A gated product by a plain one, and a kernel that gates its results. */
export function gateAfter(
  commands: Commands,
  { weight, x, out, rows, activation, scratch }: GatedProduct,
  multiply: (product: Product) => void,
): void {
  const gateUp = scratch.take("gate and up", "f32", [rows, weight.rows]);
  multiply({ weight, x, y: gateUp, rows, scratch });
  swiglu(commands, { gateUp, out, rows, width: weight.rows / 2, activation });
}

/** Heads by a plain product, and a kernel that places its results. */
export function placeAfter(
  commands: Commands,
  { weight, x, rows, heads, scratch }: HeadProduct,
  multiply: (product: Product) => void,
): void {
  const qkv = scratch.take("qkv", "f32", [rows, slotsOf(heads.shape) * heads.shape.headDim]);
  multiply({ weight, x, y: qkv, rows, scratch });
  ropeAppend(commands, { ...heads, rows, qkv });
}

/** The end of a kernel's name. */
export function describeGate(gate: ProductGate<ProductForm> | undefined): string {
  return gate === undefined ? "" : ` gated by ${gate.activation} ${gate.form}`;
}

/** WGSL that kernels need which call `gated` and store by `storeFour`. */
export function productGateWgsl({ activation }: ProductGate<ProductForm>): string {
  return `${ROW_FORM_WGSL}
      ${gateWgsl(activation)}`;
}
