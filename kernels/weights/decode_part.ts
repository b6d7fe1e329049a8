/**
 * Quantised weights as halves in memory, for products of so many rows that decoding them once costs less than decoding them in every
 * tile. They are the halves that matrix kernels make of them on their way, to the bit.
 */

import type { GpuInfo } from "../gpu_info.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import type { Scratch } from "../scratch.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, spread, writes } from "../wgsl.ts";
import { isQuantized, type QuantizedDType, weightBytes } from "./format.ts";
import { halvesOfEight } from "./halves_of_eight.ts";
import { declareEight, fetchEight } from "./read_eight.ts";
import type { Weight, WeightPart } from "./weight.ts";

/** A part, and working memory for its halves. */
export interface PartToDecode {
  readonly part: WeightPart;
  readonly cols: number;
  readonly scratch: Scratch;
}

const THREADS = 256;
/** Working memory for halves at most. */
const MAX_BYTES = 2 ** 30;

/** Whether a weight has quantised parts, and each of them fits as halves. */
export function isDecodable(
  { maxBindingBytes, maxBufferBytes }: Pick<GpuInfo, "maxBindingBytes" | "maxBufferBytes">,
  { cols, parts }: Pick<Weight, "cols" | "parts">,
): boolean {
  const quantized = parts.filter(({ dtype }) => isQuantized(dtype));
  const bound = Math.min(MAX_BYTES, maxBindingBytes, maxBufferBytes);
  return quantized.length > 0 && quantized.every(({ rows }) => weightBytes("f16", rows * cols) <= bound);
}

/** The part as f16, in working memory that lasts until the next one is decoded with it; itself where it is not quantised. */
export function decodePart(commands: Commands, { part, cols, scratch }: PartToDecode): WeightPart {
  const { tensor, dtype, rows } = part;
  if (!isQuantized(dtype)) return part;
  const halves = scratch.take("decoded weight", "f16", [rows, cols]);
  const eights = cols / 8;
  commands.dispatch(commands.kernel(`decode ${dtype}`, () => spec(dtype)), {
    tensors: [tensor, halves],
    params: { partRows: rows, eights },
    groups: spread(Math.ceil(rows * eights / THREADS)),
  });
  return { ...part, tensor: halves, dtype: "f16" };
}

function spec(dtype: QuantizedDType): KernelSpec {
  return {
    needs: ["f16"],
    bindings: [reads("w", "array<vec4<u32>>"), writes("out", "array<vec4<u32>>")],
    params: [["partRows", "u32"], ["eights", "u32"]],
    source: `
      ${HALF_PACKING_WGSL}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.partRows * params.eights) { return; }
        ${declareEight(dtype, "w0")}
        ${fetchEight(dtype, "w", { into: "w0", index: "i" })}
        ${halvesOfEight(dtype, "w0", "out[i]")}
      }`,
  };
}
