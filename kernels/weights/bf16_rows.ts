/**
 * Rows of bf16 as a file has them to rows of f16 in a weight, on the GPU: the nearest f16, ties to the even one. In
 * whole numbers, as a device may flush or round small floats as it likes.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import type { Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";
import type { WeightPart } from "./weight.ts";

/** Rows to be converted; their values fit f16. */
export interface Bf16Rows {
  /** The rows as a file has them. */
  readonly raw: Tensor;
  /** Of f16. */
  readonly part: WeightPart;
  /** A multiple of 8. */
  readonly cols: number;
  /** Within the part. */
  readonly firstRow: number;
  readonly rows: number;
}

const THREADS = 64;
/** Numbers in a vector of four words. */
const EIGHT = 8;

/** Converts rows into a part. */
export function convertBf16Rows(commands: Commands, { raw, part, cols, firstRow, rows }: Bf16Rows): void {
  const eights = rows * cols / EIGHT;
  commands.dispatch(commands.kernel("bf16 rows to f16", spec), {
    tensors: [raw, part.tensor],
    params: { first: firstRow * cols / EIGHT, eights },
    groups: spread(Math.ceil(eights / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("raw", "array<vec4<u32>>"), writes("w", "array<vec4<u32>>")],
    params: [["first", "u32"], ["eights", "u32"]],
    source: `
      // Of four numbers in the lower halves of words. An f16 has three bits more below the point than a bf16, but its
      // exponent ends at −14: smaller numbers lose bits, rounded to nearest.
      fn halves(patterns: vec4<u32>) -> vec4<u32> {
        let sign = patterns & vec4<u32>(0x8000u);
        let exponent = (patterns >> vec4<u32>(7u)) & vec4<u32>(0xffu);
        let fraction = patterns & vec4<u32>(0x7fu);
        let large = ((exponent - vec4<u32>(112u)) << vec4<u32>(10u)) | (fraction << vec4<u32>(3u));
        let significand = (fraction | vec4<u32>(0x80u)) << vec4<u32>(3u);
        // 10 bits more than those of a significand shift it out.
        let shift = min(vec4<u32>(113u) - min(exponent, vec4<u32>(112u)), vec4<u32>(20u));
        let even = (significand >> shift) & vec4<u32>(1u);
        let small = (significand + (vec4<u32>(1u) << (shift - vec4<u32>(1u))) - vec4<u32>(1u) + even) >> shift;
        return sign | select(small, large, exponent > vec4<u32>(112u));
      }
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.eights) { return; }
        let words = raw[i];
        w[params.first + i] = halves(words & vec4<u32>(0xffffu)) | (halves(words >> vec4<u32>(16u)) << vec4<u32>(16u));
      }`,
  };
}
