/**
 * A weight matrix on the GPU: row-major [rows, cols], split by rows into parts that one binding can hold, each of one
 * format. Knows formats and bytes; knows nothing of what the rows mean.
 */

import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";
import { columnsMultiple, isQuantized, weightBytes, type WeightDType } from "./format.ts";

/** Consecutive rows of a weight in one tensor. */
export interface WeightPart {
  /** Of u32 words when quantised: see `planesOf`. */
  readonly tensor: Tensor;
  readonly dtype: WeightDType;
  readonly firstRow: number;
  readonly rows: number;
}

/** A matrix of `rows` output features by `cols` input features; `cols` is a multiple of 8. */
export interface Weight {
  readonly label: string;
  readonly rows: number;
  readonly cols: number;
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

const MAX_PART_BYTES = 2 ** 30;
const ROWS_MULTIPLE = 64;
/** What the planes of a part may take beyond those of its rows one by one. */
const PLANE_PADDING = 48;

/**
 * Allocates a zeroed weight.
 * @throws {GpuError} `invalid_shape` when `cols` is not a positive multiple of what the type needs, or one row exceeds a part
 */
export function createWeight(gpu: Gpu, label: string, shape: WeightShape): Weight {
  const { rows, cols, dtype } = shape;
  const multiple = columnsMultiple(dtype);
  if (cols <= 0 || cols % multiple !== 0) {
    const expected = `a positive multiple of ${multiple}, as ${dtype} needs`;
    throw new GpuError("invalid_shape", `Cannot create ${label}: ${cols} columns are not ${expected}`);
  }
  const step = rowsOfPart(gpu, label, shape);
  const parts: WeightPart[] = [];
  for (let firstRow = 0; firstRow < rows; firstRow += step) {
    const count = Math.min(step, rows - firstRow);
    const name = `${label} rows ${firstRow}–${firstRow + count - 1}`;
    const tensor = isQuantized(dtype)
      ? gpu.tensor(name, "u32", [weightBytes(dtype, count * cols) / 4])
      : gpu.tensor(name, dtype, [count, cols]);
    parts.push({ tensor, dtype, firstRow, rows: count });
  }
  return { label, rows, cols, parts };
}

function rowsOfPart(gpu: Gpu, label: string, { cols, dtype, partBytes }: WeightShape): number {
  const rowBytes = weightBytes(dtype, cols);
  const bound = Math.min(gpu.info.maxBindingBytes, gpu.info.maxBufferBytes, partBytes ?? MAX_PART_BYTES);
  const fitting = Math.floor((bound - (isQuantized(dtype) ? PLANE_PADDING : 0)) / rowBytes);
  if (fitting <= 0) {
    throw new GpuError(
      "invalid_shape",
      `Cannot create ${label}: a row of ${rowBytes} bytes exceeds a part of ${bound}`,
    );
  }
  return fitting < ROWS_MULTIPLE ? fitting : fitting - fitting % ROWS_MULTIPLE;
}

/** One weight of the rows of several, one after the other; it takes over their parts. */
export function stackWeights(label: string, weights: readonly Weight[]): Weight {
  const parts: WeightPart[] = [];
  let rows = 0;
  for (const weight of weights) {
    for (const part of weight.parts) parts.push({ ...part, firstRow: part.firstRow + rows });
    rows += weight.rows;
  }
  return { label, rows, cols: weights[0]?.cols ?? 0, parts };
}

/** Whether a part is kept in f32, which matrix units would round. */
export function hasFloatParts({ parts }: Pick<Weight, "parts">): boolean {
  return parts.some(({ dtype }) => dtype === "f32");
}

/** Whether a part is quantised. */
export function hasQuantizedParts({ parts }: Pick<Weight, "parts">): boolean {
  return parts.some(({ dtype }) => isQuantized(dtype));
}

/** Destroys the buffers of a weight. */
export function freeWeight(gpu: Gpu, weight: Weight): void {
  for (const { tensor } of weight.parts) gpu.free(tensor);
}
