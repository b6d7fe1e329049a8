/** The states of rows over all that they see, as the product after attention reads them. */

import { canMergeToDigits } from "../../kernels/attention/merge_states.ts";
import type { ProductForm, Rows } from "../../kernels/rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Pass, PassLayer } from "./pass.ts";

/** @see the file's paragraph */
export interface RowStates {
  /** [rows, heads · headDim] */
  readonly o: Rows<ProductForm>;
  /** f32 [rows, heads] */
  readonly lse: Tensor;
}

/** Working memory for what attention kernels write of so many rows, in the form that the product of a layer reads. */
export function outputsFor(pass: Pass, { weights }: PassLayer, name: string, rows: number): Rows<ProductForm> {
  return pass.rowsFor(weights.output, name, { digits: canMergeToDigits(pass.model.config), rows });
}
