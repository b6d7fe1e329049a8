/**
 * A weight matrix on the GPU: row-major [rows, cols], f16 or f32, split by rows into parts that one binding can hold.
 * Knows formats and bytes; knows nothing of what the rows mean.
 */

import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { bf16ToF32, bf16ToHalf, fromHalf, MAX_HALF, toHalf } from "../half.ts";
import { floatsFinite, halvesBelow } from "../magnitude.ts";
import { bytesOf, type Tensor } from "../tensor.ts";
import type { WeightDType } from "../wgsl.ts";

/** Consecutive rows of a weight in one tensor. */
export interface WeightPart {
  readonly tensor: Tensor;
  readonly firstRow: number;
  readonly rows: number;
}

/** A matrix of `rows` output features by `cols` input features; `cols` is a multiple of 8. */
export interface Weight {
  readonly label: string;
  readonly rows: number;
  readonly cols: number;
  readonly dtype: WeightDType;
  /** In the order of their rows. */
  readonly parts: readonly WeightPart[];
}

/** What a matrix to be made looks like. */
export interface WeightShape {
  readonly rows: number;
  readonly cols: number;
  readonly dtype: WeightDType;
  /** @default the largest binding, at most 1 GiB */
  readonly partBytes?: number;
}

/** Element types of weights in files. */
export type SourceDType = "F32" | "F16" | "BF16";

/** Whole rows as they lie in a file, little-endian. */
export interface SourceRows {
  readonly firstRow: number;
  readonly source: SourceDType;
  readonly data: Uint8Array<ArrayBuffer>;
}

const MAX_PART_BYTES = 2 ** 30;
const CHUNK_BYTES = 4 * 2 ** 20;
/** Staging memory of writes is given back at submits: one every so many bytes. */
const SUBMIT_BYTES = 64 * 2 ** 20;
const ROWS_MULTIPLE = 64;
/** The pattern of 65280: the next bf16, 65536, exceeds f16. */
const MAX_BF16_IN_HALF = 0x477f;
const F16_INFINITY = 0x7c00;
const BF16_INFINITY = 0x7f80;

/**
 * Allocates a zeroed weight.
 * @throws {GpuError} `invalid_shape` when `cols` is not a positive multiple of 8, or one row exceeds a part
 */
export function createWeight(gpu: Gpu, label: string, shape: WeightShape): Weight {
  const { rows, cols, dtype } = shape;
  if (cols <= 0 || cols % 8 !== 0) {
    throw new GpuError("invalid_shape", `Cannot create ${label}: ${cols} columns are not a positive multiple of 8`);
  }
  const rowBytes = cols * bytesOf(dtype);
  const bound = Math.min(gpu.info.maxBindingBytes, gpu.info.maxBufferBytes, shape.partBytes ?? MAX_PART_BYTES);
  const fitting = Math.floor(bound / rowBytes);
  if (fitting === 0) {
    throw new GpuError(
      "invalid_shape",
      `Cannot create ${label}: a row of ${rowBytes} bytes exceeds a part of ${bound}`,
    );
  }
  const step = fitting < ROWS_MULTIPLE ? fitting : fitting - fitting % ROWS_MULTIPLE;
  const parts: WeightPart[] = [];
  for (let firstRow = 0; firstRow < rows; firstRow += step) {
    const count = Math.min(step, rows - firstRow);
    const tensor = gpu.tensor(`${label} rows ${firstRow}–${firstRow + count - 1}`, dtype, [count, cols]);
    parts.push({ tensor, firstRow, rows: count });
  }
  return { label, rows, cols, dtype, parts };
}

/** Destroys the buffers of a weight. */
export function freeWeight(gpu: Gpu, weight: Weight): void {
  for (const { tensor } of weight.parts) gpu.free(tensor);
}

/**
 * Converts rows as they lie in a file and uploads them, in chunks.
 * @throws {GpuError} `invalid_shape` when they are not whole rows of the weight, or a value is not finite or does not fit
 */
export function writeRows(gpu: Gpu, weight: Weight, { firstRow, source, data }: SourceRows): void {
  const rowBytes = weight.cols * bytesInFile(source);
  const rows = data.byteLength / rowBytes;
  if (!Number.isInteger(rows) || firstRow < 0 || firstRow + rows > weight.rows) {
    throw new GpuError(
      "invalid_shape",
      `Cannot write ${weight.label}: ${data.byteLength} bytes of ${source} at row ${firstRow} are not whole rows ` +
        `of [${weight.rows}, ${weight.cols}]`,
    );
  }
  let unsubmitted = 0;
  for (const part of weight.parts) {
    const end = Math.min(firstRow + rows, part.firstRow + part.rows);
    const chunkRows = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
    for (let row = Math.max(firstRow, part.firstRow); row < end; row += chunkRows) {
      const last = Math.min(end, row + chunkRows);
      const bytes = data.subarray((row - firstRow) * rowBytes, (last - firstRow) * rowBytes);
      const converted = convert(weight, source, bytes);
      gpu.write(part.tensor, converted, (row - part.firstRow) * weight.cols * bytesOf(weight.dtype));
      unsubmitted += converted.byteLength;
      if (unsubmitted >= SUBMIT_BYTES) {
        gpu.device.queue.submit([]);
        unsubmitted = 0;
      }
    }
  }
}

/** Whether every value is finite and within the range of f16: such data may be kept as f16. */
export function fitsHalf(source: SourceDType, data: Uint8Array<ArrayBuffer>): boolean {
  if (source === "F32") return largest(asFloats(data)) <= MAX_HALF;
  return halvesBelow(data, source === "F16" ? F16_INFINITY : MAX_BF16_IN_HALF + 1);
}

function allFinite(source: SourceDType, data: Uint8Array<ArrayBuffer>): boolean {
  return source === "F32" ? floatsFinite(data) : halvesBelow(data, source === "F16" ? F16_INFINITY : BF16_INFINITY);
}

function bytesInFile(source: SourceDType): number {
  return source === "F32" ? 4 : 2;
}

function convert(weight: Weight, source: SourceDType, data: Uint8Array<ArrayBuffer>): ArrayBufferView<ArrayBuffer> {
  const fits = weight.dtype === "f32" ? allFinite(source, data) : fitsHalf(source, data);
  if (!fits) {
    const bound = weight.dtype === "f32" ? "finite values" : `values up to ${MAX_HALF}`;
    const found = largest(toFloats(source, data));
    throw new GpuError(
      "invalid_shape",
      `Cannot write ${weight.label} as ${weight.dtype}: expected ${bound}, found ${found}`,
    );
  }
  if (weight.dtype === "f32") return source === "F32" ? data : toFloats(source, data);
  if (source === "F16") return data;
  return source === "BF16" ? bf16ToHalf(asHalves(data)) : toHalf(asFloats(data));
}

function toFloats(source: SourceDType, data: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  if (source === "F32") return asFloats(data);
  return source === "F16" ? fromHalf(asHalves(data)) : bf16ToF32(asHalves(data));
}

/** Views need alignment, which bytes from a file may lack. */
function asFloats(data: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const { buffer, byteOffset } = data.byteOffset % 4 === 0 ? data : data.slice();
  return new Float32Array(buffer, byteOffset, data.byteLength / 4);
}

function asHalves(data: Uint8Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  const { buffer, byteOffset } = data.byteOffset % 2 === 0 ? data : data.slice();
  return new Uint16Array(buffer, byteOffset, data.byteLength / 2);
}

/** The largest magnitude; an infinity or NaN counts as infinite. */
function largest(values: Float32Array): number {
  let highest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i] ?? 0);
    if (Number.isNaN(magnitude)) return Infinity;
    if (magnitude > highest) highest = magnitude;
  }
  return highest;
}
