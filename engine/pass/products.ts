/** The product of each family: which kernel multiplies the rows of a batch. */

import type { Commands } from "../../kernels/pipeline.ts";
import { matmul } from "../../kernels/products/matmul.ts";
import { matvec, planDenseRows, type Product } from "../../kernels/products/matvec.ts";
import type { ProductFamily } from "../row_batch.ts";

/**
 * y = W·x, or y += W·x, by the kernels of a family.
 * @throws {GpuError} `invalid_shape` when a tensor is too small or no f32
 */
export function multiply(commands: Commands, family: ProductFamily, product: Product): void {
  if (family === "tiled") matmul(commands, product);
  else if (family === "dense") matvec(commands, product, planDenseRows(commands.gpu.info, product.weight));
  else matvec(commands, product);
}
