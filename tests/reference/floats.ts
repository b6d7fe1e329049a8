/** Number formats of weights, exactly widened to f64. Knows bits; knows nothing of tensors. */

import { isBlockType, type SourceDType } from "../../kernels/weights/source_types.ts";
import { dequantize } from "./dequantize.ts";

/** @param bytes little-endian elements, aligned to their size */
export function toFloat64(bytes: Uint8Array<ArrayBuffer>, dtype: SourceDType): Float64Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (isBlockType(dtype)) return Float64Array.from(dequantize(dtype, bytes));
  switch (dtype) {
    case "F32":
      return Float64Array.from(new Float32Array(buffer, byteOffset, byteLength / 4));
    case "F16":
      return Float64Array.from(new Float16Array(buffer, byteOffset, byteLength / 2));
    case "BF16": {
      // A bf16 is the upper half of an f32.
      const wide = Uint32Array.from(new Uint16Array(buffer, byteOffset, byteLength / 2), (half) => half << 16);
      return Float64Array.from(new Float32Array(wide.buffer));
    }
  }
}
