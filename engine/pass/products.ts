/** The product of each family: which kernel multiplies the rows of a batch, and in which form it reads them. */

import type { Commands } from "../../kernels/pipeline.ts";
import { gatedMatmul, matmul, matmulForm, planMatmul } from "../../kernels/products/matmul.ts";
import { gatedMatvec, headMatvec, matvec, matvecForm, planRows } from "../../kernels/products/matvec.ts";
import { type GatedProduct, type HeadProduct, placeAfter, type Product } from "../../kernels/products/product.ts";
import type { ProductForm } from "../../kernels/rows.ts";
import type { Weight } from "../../kernels/weights/weight.ts";
import type { ProductFamily } from "../row_batch.ts";

/**
 * y = W·x, or y += W·x, by the kernels of a family.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the family does not read
 */
export function multiply(commands: Commands, family: ProductFamily, product: Product): void {
  if (family === "tiled") matmul(commands, product);
  else matvec(commands, product, planRows(commands.gpu.info, product.weight));
}

/**
 * out = activation(G·x) · (U·x), by the kernels of a family.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the family does not read
 */
export function multiplyGated(commands: Commands, family: ProductFamily, product: GatedProduct): void {
  if (family === "tiled") gatedMatmul(commands, product);
  else gatedMatvec(commands, product, planRows(commands.gpu.info, product.weight));
}

/**
 * Heads of rows, placed where attention reads them, by the kernels of a family.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the family does not read
 */
export function multiplyHeads(commands: Commands, family: ProductFamily, product: HeadProduct): void {
  if (family === "tiled") placeAfter(commands, product, (whole) => matmul(commands, whole));
  else headMatvec(commands, product, planRows(commands.gpu.info, product.weight));
}

/** The form in which a family's product with a weight reads rows: what comes before it writes them so. */
export function rowFormFor(
  commands: Commands,
  family: ProductFamily,
  { weight, rows }: { readonly weight: Weight; readonly rows: number },
): ProductForm {
  if (family === "tiled") return matmulForm(planMatmul(commands.gpu.info, rows, weight));
  return matvecForm(planRows(commands.gpu.info, weight));
}
