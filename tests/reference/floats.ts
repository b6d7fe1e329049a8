/** Number formats of weights, exactly widened to f64. Knows bits; knows nothing of tensors. */

import type { Dtype } from "../../engine/model/safetensors_header.ts";

/** @param bytes little-endian elements, aligned to their size */
export function toFloat64(bytes: Uint8Array<ArrayBuffer>, dtype: Dtype): Float64Array {
  const { buffer, byteOffset, byteLength } = bytes;
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
