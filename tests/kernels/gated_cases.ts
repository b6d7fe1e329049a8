/** The cases of gated products of either kind: a product of its table's kind, and what its results become. */

import type { GatedProduct } from "../../kernels/products/product.ts";
import { type RowForm, takeRows } from "../../kernels/rows.ts";
import type { Activation } from "../../kernels/swiglu.ts";
import { freeWeight } from "../../kernels/weights/weight.ts";
import { swiglu } from "../reference/swiglu.ts";
import { assertClose } from "../support/assert_close.ts";
import type { GpuFixture } from "../support/gpu_fixture.ts";
import { ROW_FORM_NMSE, rowValues } from "../support/row_values.ts";
import { makeOperands, type ProductCase } from "./product_cases.ts";

/** A product of twice `weightRows / 2` results; the tolerance is that of the sums. */
export interface GatedCase extends Omit<ProductCase, "accumulate"> {
  readonly form: RowForm;
  readonly activation: Activation;
}

/** WGSL's exp may err by (3 + 2|x|) ulp. */
const GATED = 1e-11;

/** What distinguishes a case, for messages. */
export function describeGated({ rows, weightRows, cols, dtype, form, activation, partBytes }: GatedCase): string {
  return `[${rows}, ${cols}] · ${dtype} [${weightRows}, ${cols}]ᵀ by ${activation} as ${form}${
    partBytes === undefined ? "" : ` in parts of ${partBytes}`
  }`;
}

/** Runs a case and compares it with plain loops. */
export async function checkGated(
  fixture: GpuFixture,
  shape: GatedCase,
  run: (product: GatedProduct) => void,
): Promise<void> {
  const { rows, weightRows, form, activation, nmse } = shape;
  const { weight, x, expected } = makeOperands(fixture, shape);
  const cols = weightRows / 2;
  const out = takeRows(fixture.scratch, `gated, ${form}`, { form, rows, cols });
  run({ weight, x, out, rows, activation, scratch: fixture.scratch });
  const actual = await rowValues(fixture, out, { rows, cols });
  assertClose(actual, swiglu(expected, cols, activation), { nmse: nmse + GATED + ROW_FORM_NMSE[form] });
  freeWeight(fixture.gpu, weight);
}
