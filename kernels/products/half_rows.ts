/**
 * Rows of activations as halves, the format that matrix units read. One half keeps 11 bits of a value; a second one that
 * holds the rest of it makes 22, as good as the sums of an f32 product.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import type { Scratch } from "../scratch.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, spread, writes } from "../wgsl.ts";

/** Halves of a value: `high` is the value rounded to f16; `both` is its upper 11 bits, and the rest rounded to f16. */
export type Halves = "high" | "both";

/** Rows of halves on the GPU. */
export interface HalfRows {
  /** f16 `[rows, cols]`; with both halves `[2, rows, cols]`: first the high ones of all rows. */
  readonly tensor: Tensor;
  readonly rows: number;
  readonly cols: number;
  readonly halves: Halves;
}

/** What `toHalfRows` converts. */
export interface ToHalfRows {
  /** f32 [rows, cols] */
  readonly x: Tensor;
  readonly rows: number;
  /** A multiple of 8. */
  readonly cols: number;
  readonly halves: Halves;
}

const THREADS = 256;
/** Sign, exponent and the ten bits of the fraction that an f16 has, in an f32. */
const UPPER_BITS = 0xffffe000;

/**
 * Rounds rows to halves, in working memory that lasts until the next call with the same `scratch`. Values beyond ±65504
 * become ±65504.
 * @throws {GpuError} `invalid_shape` when `x` does not fit
 */
export function toHalfRows(commands: Commands, scratch: Scratch, { x, rows, cols, halves }: ToHalfRows): HalfRows {
  expectTensor("half_rows", x, "f32", [rows, cols]);
  const tensor = scratch.take(`halves (${halves})`, "f16", [halves === "both" ? 2 : 1, rows, cols]);
  const vectors = rows * cols / 8;
  commands.dispatch(commands.kernel(`half_rows ${halves}`, () => spec(halves)), {
    tensors: [x, tensor],
    params: { vectors },
    groups: spread(Math.ceil(vectors / THREADS)),
  });
  return { tensor, rows, cols, halves };
}

function spec(halves: Halves): KernelSpec {
  return {
    bindings: [reads("x", "array<vec4<f32>>"), writes("out", "array<vec4<u32>>")],
    params: [["vectors", "u32"]],
    source: `
      ${HALF_PACKING_WGSL}
      // Cut off, not rounded: of a value minus its rounded self, compilers have been seen to make 0.
      fn upper(value: vec4<f32>) -> vec4<f32> { return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) & vec4<u32>(${UPPER_BITS}u)); }
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.vectors) { return; }
        let a = bounded(x[2u * i]);
        let b = bounded(x[2u * i + 1u]);
        ${
      halves === "high" ? "out[i] = packed(a, b);" : `
        out[i] = packed(upper(a), upper(b));
        out[params.vectors + i] = packed(a - upper(a), b - upper(b));`
    }
      }`,
  };
}
