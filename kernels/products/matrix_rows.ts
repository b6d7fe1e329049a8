/** Dispatches the product of rows that attend densely on matrix units. */

import { asHalves } from "./half_rows.ts";
import type { Pairing } from "./paired_results.ts";
import type { Commands, Dispatch } from "../pipeline.ts";
import type { ProductForm, RowForm } from "../rows.ts";
import type { Product } from "./product.ts";
import { rowProduct, rowProductName } from "./row_product.ts";
import { isRagged, rowPlanOf, type RowProductCut, rowTileFor } from "./row_tile.ts";
import { spread } from "../wgsl.ts";

/** What happens to a product's results: the pairing, and what it binds and takes as parameters in the end. */
export interface Results<Form extends ProductForm = RowForm>
  extends Pick<Dispatch, "tensors" | "params">, Pairing<Form> {}

/** A product and what happens to its results. */
export type Multiplied<Form extends ProductForm = RowForm> =
  & Pick<Product, "weight" | "x" | "rows" | "accumulate" | "scratch">
  & { readonly results: Results<Form> };

/** Dispatches a product of rows in any form. */
export function multiplyRows(
  commands: Commands,
  { weight, x, rows, accumulate = false, scratch, results }: Multiplied,
  { tiles, ...cut }: RowProductCut,
): void {
  const { tensors, params, ...pairing } = results;
  const { cols } = weight;
  const { tensor: halves } = asHalves(commands, scratch, { x, rows, cols });
  const tile = rowTileFor({ ...cut, tiles }, { rows, weightRows: weight.rows });
  const ragged = isRagged({ ...cut, tile }, cols);
  for (let firstInput = 0; firstInput < rows; firstInput += tile.rows) {
    for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
      const variant = { ...cut, tile, dtype, ragged, accumulate, ...pairing };
      commands.dispatch(commands.kernel(rowProductName(variant), () => rowProduct(variant)), {
        tensors: [tensor, halves, ...tensors],
        params: { rows, firstInput, partRows, firstRow, weightRows: weight.rows, eights: cols / 8, ...params },
        groups: spread(Math.ceil(partRows / rowPlanOf(variant).outputs)),
      });
    }
  }
}
