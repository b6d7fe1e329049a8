/**
 * Fills weights with random numbers on the GPU, for models that have a shape but no files. Knows nothing of real models;
 * the numbers are the same on every adapter up to the last bit of their rounding.
 */

import { GpuError } from "../errors.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { MIX } from "../logits/counter_hash.ts";
import { bytesOf } from "../tensor.ts";
import { isQuantized } from "./format.ts";
import { weightType } from "./read_eight.ts";
import type { Weight } from "./weight.ts";
import { BUILTINS, GROUP_INDEX, spread, unroll, writes } from "../wgsl.ts";

/** The distribution and where its stream starts. */
export interface RandomFill {
  /** u32; give each weight its own. */
  readonly seed: number;
  /** Standard deviation; the mean is 0. */
  readonly deviation: number;
}

const THREADS = 256;

/** Fills a weight with numbers of a triangular distribution, which depend only on the seed and the element's index. */
export function randomWeight(commands: Commands, weight: Weight, { seed, deviation }: RandomFill): void {
  for (const { tensor, dtype, firstRow, rows } of weight.parts) {
    if (isQuantized(dtype)) {
      throw new GpuError("invalid_shape", `Cannot fill ${tensor.label}: random numbers are f16 or f32, not ${dtype}`);
    }
    const perVector = 16 / bytesOf(dtype);
    const vectors = rows * weight.cols / perVector;
    commands.dispatch(commands.kernel(`random_weight ${dtype}`, () => spec(dtype)), {
      tensors: [tensor],
      // The sum of two uniform numbers has variance 1/6.
      params: { vectors, first: firstRow * weight.cols / perVector, seed, scale: deviation * Math.sqrt(6) },
      groups: spread(Math.ceil(vectors / THREADS)),
    });
  }
}

function spec(dtype: "f16" | "f32"): KernelSpec {
  const value = (i: number) => `value(start + ${i}u)`;
  const pair = (i: number) => `pack2x16float(vec2<f32>(${value(2 * i)}, ${value(2 * i + 1)}))`;
  const four = (piece: (i: number) => string) => unroll(4, (i) => piece(i) + (i < 3 ? "," : ""));
  return {
    bindings: [writes("w", weightType(dtype))],
    params: [["vectors", "u32"], ["first", "u32"], ["seed", "u32"], ["scale", "f32"]],
    source: `
      ${MIX}
      fn value(index: u32) -> f32 {
        let bits = mix(index + mix(params.seed));
        return (f32(bits & 0xffffu) + f32(bits >> 16u) - 65535.0) / 65536.0 * params.scale;
      }
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let vector = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (vector >= params.vectors) { return; }
        let start = (params.first + vector) * ${16 / bytesOf(dtype)}u;
        w[vector] = ${dtype === "f16" ? `vec4<u32>(${four(pair)})` : `vec4<f32>(${four(value)})`};
      }`,
  };
}
