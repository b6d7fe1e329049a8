/** The cases of gated products of either kind: a product of its table's kind, and what its results become. */

import assert from "node:assert/strict";
import { gateAfter, type GatedProduct, type Product } from "../../kernels/products/product.ts";
import { floatRows, type RowForm, takeRows } from "../../kernels/rows.ts";
import type { Activation } from "../../kernels/swiglu.ts";
import type { WeightDType } from "../../kernels/weights/format.ts";
import { createWeight, freeWeight, type Weight } from "../../kernels/weights/weight.ts";
import { writeRows } from "../../kernels/weights/write_rows.ts";
import { swiglu } from "../reference/swiglu.ts";
import { assertClose } from "../support/assert_close.ts";
import type { GpuFixture } from "../support/gpu_fixture.ts";
import { Random } from "../support/random.ts";
import { ROW_FORM_NMSE, rowValues } from "../support/row_values.ts";
import { makeOperands, type ProductCase, weightData } from "./product_cases.ts";

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

/** Rows whose bits are compared, and the form of their results. */
export interface GatedBits extends Pick<GatedCase, "rows" | "weightRows" | "cols" | "form"> {
  /** Of the rows, which are computed together: the first, and how many. */
  readonly ranges: readonly (readonly [first: number, count: number])[];
  /** Of the rows' values. @default 1 */
  readonly deviation?: number;
  /** Of the weight. @default "f16" */
  readonly dtype?: WeightDType;
}

/**
 * Compares rows by a gated kernel, in any company, with all of them by the product and its gate one after the other: bits must be equal.
 * @param ways for a weight: the gated kernel, and the product alone
 */
export async function checkGatedBits(
  fixture: GpuFixture,
  { rows, weightRows, cols, form, ranges, deviation = 1, dtype = "f16" }: GatedBits,
  ways: (weight: Weight) => {
    readonly gated: (product: GatedProduct) => void;
    readonly product: (product: Product) => void;
  },
): Promise<void> {
  const random = new Random(6);
  const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype });
  writeRows(fixture, weight, { firstRow: 0, ...weightData(random, dtype, weightRows * cols) });
  const values = random.normals(rows * cols, deviation);
  const width = weightRows / 2;
  const run = async (first: number, count: number, multiply: (product: GatedProduct) => void) => {
    const x = floatRows(fixture.upload("f32", values.slice(first * cols, (first + count) * cols), [count, cols]));
    const out = takeRows(fixture.scratch, "gated bits", { form, rows: count, cols: width });
    multiply({ weight, x, out, rows: count, activation: "silu", scratch: fixture.scratch });
    return new BigUint64Array((await rowValues(fixture, out, { rows: count, cols: width })).buffer);
  };
  const { gated, product } = ways(weight);
  const apart = await run(0, rows, (gatedProduct) => gateAfter(fixture.commands, gatedProduct, product));
  for (const [first, count] of ranges) {
    assert.deepEqual(await run(first, count, gated), apart.slice(first * width, (first + count) * width));
  }
  freeWeight(fixture.gpu, weight);
}
