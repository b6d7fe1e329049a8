/**
 * Fills weights with random numbers on the GPU, for models that have a shape but no files. Knows nothing of real models;
 * the numbers are the same on every adapter up to the last bit of their rounding.
 */

import { toHalf } from "../half.ts";
import { MIX } from "../logits/counter_hash.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { bytesOf } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, spread, unroll, writes } from "../wgsl.ts";
import { isQuantized, planesOf, QUANTIZED, type QuantizedDType } from "./format.ts";
import { weightType } from "./read_eight.ts";
import type { Weight, WeightPart } from "./weight.ts";

/** The distribution and where its stream starts. */
export interface RandomFill {
  /** u32; give each weight its own. */
  readonly seed: number;
  /** Standard deviation; the mean is 0, of an even number of groups where they are quantised. */
  readonly deviation: number;
}

const THREADS = 256;
/** Of an f16. */
const SIGN = 0x8000;

/**
 * Deviation of random quanta times random scales (a quantised weight divided by the f16 that scales it), and how many
 * times as large the f16 of the minima is: it centres each group, whose minimum and scale are the same number.
 */
const SPREAD: Readonly<Record<QuantizedDType, { readonly deviation: number; readonly minimum: number }>> = {
  q8: { deviation: 73.9, minimum: 0 },
  q4: { deviation: 4.6, minimum: 0 },
  q5: { deviation: 9.2, minimum: 0 },
  q4k: { deviation: 168.3, minimum: 7.5 },
  q5k: { deviation: 337.1, minimum: 15.5 },
  q6k: { deviation: 1366, minimum: 0 },
};

/**
 * Fills a weight with numbers that depend only on the seed and the element's index: of a triangular distribution, or
 * random quanta with equal scales.
 */
export function randomWeight(commands: Commands, weight: Weight, fill: RandomFill): void {
  for (const part of weight.parts) {
    if (isQuantized(part.dtype)) fillQuanta(commands, { part, dtype: part.dtype, cols: weight.cols }, fill);
    else fillNumbers(commands, { part, dtype: part.dtype, cols: weight.cols }, fill);
  }
}

interface Filled<DType> {
  readonly part: WeightPart;
  readonly dtype: DType;
  readonly cols: number;
}

function fillNumbers(
  commands: Commands,
  { part, dtype, cols }: Filled<"f16" | "f32">,
  { seed, deviation }: RandomFill,
): void {
  const perVector = 16 / bytesOf(dtype);
  const vectors = part.rows * cols / perVector;
  commands.dispatch(commands.kernel(`random_weight ${dtype}`, () => numberSpec(dtype)), {
    tensors: [part.tensor],
    // The sum of two uniform numbers has variance 1/6.
    params: { vectors, first: part.firstRow * cols / perVector, seed, scale: deviation * Math.sqrt(6) },
    groups: spread(Math.ceil(vectors / THREADS)),
  });
}

function fillQuanta(
  commands: Commands,
  { part, dtype, cols }: Filled<QuantizedDType>,
  { seed, deviation }: RandomFill,
): void {
  const { scales, blocks, end } = planesOf(dtype, part.rows * cols);
  const scale = deviation / SPREAD[dtype].deviation;
  const [low = 0, minimum = 0] = toHalf([scale, scale * SPREAD[dtype].minimum]);
  // Of types with one scale for each group, both halves of a word are scales. Quanta have a mean of half a one below zero, which
  // groups by turns make positive: without that a model's rows lean ever more into one direction, so that its keys are alike.
  const isPaired = QUANTIZED[dtype].scales === "group";
  commands.dispatch(commands.kernel(`random_quanta ${dtype}`, () => quantaSpec(dtype)), {
    tensors: [part.tensor],
    params: {
      scales,
      blocks,
      end,
      first: part.firstRow,
      seed,
      halves: low + (isPaired ? low ^ SIGN : minimum) * 2 ** 16,
    },
    groups: spread(Math.ceil(end / THREADS)),
  });
}

function quantaSpec(dtype: QuantizedDType): KernelSpec {
  // Scales of eight bits, or of six, which are the minima too.
  const scales = dtype === "q6k" ? "bits" : "(bits & 0x3f003fu) * 0x101u";
  const scale = QUANTIZED[dtype].scales === "group"
    ? "params.halves"
    : `select(params.halves, ${scales}, i < params.blocks)`;
  return {
    bindings: [writes("w", "array<u32>")],
    params: ["scales", "blocks", "end", "first", "seed", "halves"].map((name) => [name, "u32"] as const),
    source: `
      ${MIX}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.end) { return; }
        let bits = mix(i + mix(params.seed + mix(params.first)));
        w[i] = select(${scale}, bits, i < params.scales);
      }`,
  };
}

function numberSpec(dtype: "f16" | "f32"): KernelSpec {
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
