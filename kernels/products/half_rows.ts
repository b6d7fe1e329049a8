/** Rows as halves, for products on matrix units whose rows come from a kernel that knows f32 only. */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectRows, type ProductForm, ROW_FORM_WGSL, type Rows, storeFour, takeRows, writesRows } from "../rows.ts";
import type { Scratch } from "../scratch.ts";
import { BUILTINS, GROUP_INDEX, reads, spread } from "../wgsl.ts";

/** What `asHalves` converts. */
export interface RowsToHalve {
  readonly x: Rows<ProductForm>;
  readonly rows: number;
  /** A multiple of 8. */
  readonly cols: number;
}

const THREADS = 256;

/**
 * The rows themselves when they are halves, else f32 rows rounded to them, in working memory that lasts until the next call with
 * the same `scratch`.
 * @throws {GpuError} `invalid_shape` when `x` does not fit, or is neither
 */
export function asHalves(commands: Commands, scratch: Scratch, { x, rows, cols }: RowsToHalve): Rows {
  if (x.form === "f16") return { tensor: x.tensor, form: x.form };
  expectRows("half_rows", x, { rows, cols, forms: ["f32"] });
  const out = takeRows(scratch, "halves", { form: "f16", rows, cols });
  const fours = rows * cols / 4;
  commands.dispatch(commands.kernel("half_rows", spec), {
    tensors: [x.tensor, out.tensor],
    params: { fours },
    groups: spread(Math.ceil(fours / THREADS)),
  });
  return out;
}

function spec(): KernelSpec {
  return {
    bindings: [reads("x", "array<vec4<f32>>"), writesRows("out", "f16")],
    params: [["fours", "u32"]],
    source: `
      ${ROW_FORM_WGSL}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.fours) { return; }
        ${storeFour("f16", "out", { value: "x[i]", at: "i" })}
      }`,
  };
}
