/** Rows as digits, for products with quantised weights whose rows come from a kernel that knows f32 only. */

import { DIGIT_LANES, DIGITS_WGSL, storeDigits } from "../digits.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectRows, type ProductForm, type Rows, takeRows } from "../rows.ts";
import type { Scratch } from "../scratch.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** What `asDigits` converts. */
export interface RowsToDigits {
  readonly x: Rows<ProductForm>;
  readonly rows: number;
  /** A multiple of 32. */
  readonly cols: number;
}

/** A multiple of all sizes of subgroups. */
const THREADS = 128;

/**
 * The rows as digits: themselves when they are, else f32 rows in working memory that lasts until the next call with the same
 * `scratch`. The adapter has subgroups of at least eight.
 * @throws {GpuError} `invalid_shape` when `x` does not fit, or is halves
 */
export function asDigits(commands: Commands, scratch: Scratch, { x, rows, cols }: RowsToDigits): Rows<"digits"> {
  if (x.form === "digits") return { tensor: x.tensor, form: x.form };
  const out = takeRows(scratch, "digits", { form: "digits", rows, cols });
  digitRows(commands, { x, out, rows, cols });
  return out;
}

/**
 * Converts f32 rows.
 * @throws {GpuError} `invalid_shape` when `x` does not fit, or is not f32
 */
export function digitRows(
  commands: Commands,
  { x, out, rows, cols }: RowsToDigits & { readonly out: Rows<"digits"> },
): void {
  expectRows("digit_rows", x, { rows, cols, forms: ["f32"] });
  expectRows("digit_rows", out, { rows, cols });
  const fours = rows * cols / 4;
  commands.dispatch(commands.kernel("digit_rows", spec), {
    tensors: [x.tensor, out.tensor],
    params: { fours, foursOfRow: cols / 4 },
    groups: spread(Math.ceil(fours / THREADS)),
  });
}

function spec(): KernelSpec {
  const place = {
    row: "i / params.foursOfRow",
    group: `i % params.foursOfRow / ${DIGIT_LANES}u`,
    groups: `params.foursOfRow / ${DIGIT_LANES}u`,
  };
  return {
    needs: ["subgroups"],
    bindings: [reads("x", "array<vec4<f32>>"), writes("out", "array<u32>")],
    params: [["fours", "u32"], ["foursOfRow", "u32"]],
    source: `
      ${DIGITS_WGSL}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        let exists = i < params.fours;
        let value = x[min(i, params.fours - 1u)];
        ${storeDigits("out", { value: "value", lane: `i % ${DIGIT_LANES}u`, place, exists: "exists" })}
      }`,
  };
}
