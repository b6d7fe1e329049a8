/** WGSL that says where the planes of quantised weights begin, for kernels whose parameters describe a part. */

import { QUANTIZED, type QuantizedDType } from "./format.ts";

/** Where planes begin, in elements of the binding: `planesOf` in WGSL, of the part that a kernel's parameters describe. */
export function planeExpressions(dtype: QuantizedDType): Readonly<Record<"high" | "scales" | "blocks", string>> {
  const { quantaWords, highBits } = QUANTIZED[dtype];
  const groups = "(params.partRows * params.eights / 4u)";
  const high = `${groups} * ${quantaWords / 4}u`;
  const scales = highBits === 0 ? high : `${high} + (${groups} * ${highBits}u + 3u) / 4u`;
  return { high, scales, blocks: `${scales} + (${groups} + 7u) / 8u` };
}
