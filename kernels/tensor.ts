/**
 * A typed, shaped window on a GPU buffer. Knows bytes and shapes; owns nothing: the pool it came from frees the buffer.
 */

import { GpuError } from "./errors.ts";

/** Element types on the GPU; f16 lies packed in pairs in u32 words, the lower half first. */
export type DType = "f32" | "f16" | "u32";

/** Bytes of one element. */
export function bytesOf(dtype: DType): number {
  return dtype === "f16" ? 2 : 4;
}

/** A window on a GPU buffer; the offset is a multiple of 256 bytes, as bindings demand. */
export interface Tensor {
  readonly buffer: GPUBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly label: string;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** Bytes that a tensor takes in a buffer: at least 16, a multiple of 16, so that vec4 bindings always fit. */
export function paddedBytes(dtype: DType, shape: readonly number[]): number {
  return Math.max(16, Math.ceil((sizeOf(shape) * bytesOf(dtype)) / 16) * 16);
}

/**
 * Checks a tensor at a kernel's door.
 * @throws {GpuError} `invalid_shape` when dtype differs or the tensor is smaller than `shape`
 */
export function expectTensor(op: string, tensor: Tensor, dtype: DType, shape: readonly number[]): void {
  if (tensor.dtype !== dtype) {
    throw new GpuError("invalid_shape", `Cannot dispatch ${op}: ${tensor.label} is ${tensor.dtype}, expected ${dtype}`);
  }
  if (tensor.byteLength < sizeOf(shape) * bytesOf(dtype)) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch ${op}: ${tensor.label} is [${tensor.shape}], expected at least [${shape}]`,
    );
  }
}
