/** Rows of activations between two kernels, in the form that the second one reads: f32, f16 for matrix units, or digits. */

import { GpuError } from "./errors.ts";
import { digitWords } from "./digits.ts";
import type { BindingSpec } from "./pipeline.ts";
import type { Scratch } from "./scratch.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { HALF_PACKING_WGSL, writes } from "./wgsl.ts";

/** `f32` as they are, or rounded to `f16`: values beyond ±65504 become ±65504. */
export type RowForm = (typeof ROW_FORMS)[number];

/** All of them; `storeFour` stores them. */
export const ROW_FORMS = ["f32", "f16"] as const;

const PRODUCT_FORMS: readonly ProductForm[] = [...ROW_FORMS, "digits"];

/** Forms that products read: also `digits`, integers with a scale for each group of 32; see `digits.ts`. */
export type ProductForm = RowForm | "digits";

/** Rows on the GPU. */
export interface Rows<Form extends ProductForm = RowForm> {
  /** f32 or f16 `[rows, cols]`; as digits u32 `[rows, 20 · cols / 32]`. */
  readonly tensor: Tensor;
  readonly form: Form;
}

/** How many numbers there are, in which form. */
export interface RowsShape<Form extends ProductForm = RowForm> {
  readonly form: Form;
  readonly rows: number;
  readonly cols: number;
}

/** Rows of an f32 tensor. */
export function floatRows(tensor: Tensor): Rows {
  return { tensor, form: "f32" };
}

/**
 * Rows that kernels can store by `storeFour`.
 * @throws {GpuError} `invalid_shape` when they are digits
 */
export function plainRows(op: string, { tensor, form }: Rows<ProductForm>): Rows {
  if (form !== "digits") return { tensor, form };
  throw new GpuError(
    "invalid_shape",
    `Cannot dispatch ${op}: ${tensor.label} is rows of form ${form}, expected ${ROW_FORMS.join(" or ")}`,
  );
}

/** Working memory of that name for rows in a form; it lasts until the next use of the name. */
export function takeRows<Form extends ProductForm>(
  scratch: Scratch,
  name: string,
  { form, rows, cols }: RowsShape<Form>,
): Rows<Form> {
  return { tensor: scratch.take(name, dtypeOf(form), shapeOf({ form, rows, cols })), form };
}

/**
 * Checks rows at a kernel's door.
 * @throws {GpuError} `invalid_shape` when they are fewer, or not in one of the forms
 */
export function expectRows(
  op: string,
  { tensor, form }: Rows<ProductForm>,
  { forms = PRODUCT_FORMS, ...shape }: Omit<RowsShape, "form"> & { readonly forms?: readonly ProductForm[] },
): void {
  if (!forms.includes(form)) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch ${op}: ${tensor.label} is rows of form ${form}, expected ${forms.join(" or ")}`,
    );
  }
  expectTensor(op, tensor, dtypeOf(form), shapeOf({ form, ...shape }));
}

function dtypeOf(form: ProductForm): "f32" | "f16" | "u32" {
  return form === "digits" ? "u32" : form;
}

function shapeOf({ form, rows, cols }: RowsShape<ProductForm>): readonly number[] {
  return [rows, form === "digits" ? digitWords(cols) : cols];
}

/** The binding through which a kernel writes rows by `storeFour`. */
export function writesRows(name: string, form: RowForm): BindingSpec {
  return writes(name, form === "f32" ? "array<vec4<f32>>" : "array<vec2<u32>>");
}

/** WGSL that `storeFour` needs. */
export const ROW_FORM_WGSL = /* wgsl */ `
${HALF_PACKING_WGSL}
fn four_halves(value: vec4<f32>) -> vec2<u32> { return vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw)); }
`;

/** Four neighbouring values to be stored; all WGSL expressions. */
export interface FourValues {
  /** A vec4<f32>. */
  readonly value: string;
  /** Their index among the fours of all rows. */
  readonly at: string;
}

/** Statements that store four values to a binding of `writesRows`. */
export function storeFour(form: RowForm, to: string, { value, at }: FourValues): string {
  switch (form) {
    case "f32":
      return `${to}[${at}] = ${value};`;
    case "f16":
      return `${to}[${at}] = four_halves(bounded(${value}));`;
  }
}
