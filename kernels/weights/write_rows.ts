/**
 * Rows from a file into a weight: bf16 is converted and quantised ones are packed on the GPU, the rest on the host. Checks every number on the way, as one that is not finite would spoil every answer.
 */

import { GpuError } from "../errors.ts";
import { bf16ToF32, bf16ToHalf, fromHalf, MAX_BF16_IN_HALF, MAX_HALF, toHalf } from "../half.ts";
import { floatsFinite, halvesBelow } from "../magnitude.ts";
import type { Commands } from "../pipeline.ts";
import type { Scratch } from "../scratch.ts";
import { isQuantized, weightBytes, type WeightDType } from "./format.ts";
import { convertBf16Rows } from "./bf16_rows.ts";
import { packRows } from "./pack_groups.ts";
import {
  type BlockDType,
  BLOCKS,
  isBlockType,
  type PlainDType,
  sourceBytes,
  type SourceDType,
} from "./source_types.ts";
import type { Weight, WeightPart } from "./weight.ts";

/** Whole rows as they lie in a file, little-endian. */
export interface SourceRows {
  readonly firstRow: number;
  readonly source: SourceDType;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** What a write records with, and working memory for bytes on their way. */
export interface WriteTools {
  readonly commands: Commands;
  readonly scratch: Scratch;
}

/** Rows within a part. */
interface PartRows {
  readonly part: WeightPart;
  readonly cols: number;
  readonly firstRow: number;
  readonly rows: number;
  readonly source: SourceDType;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const CHUNK_BYTES = 4 * 2 ** 20;
/** Staging memory of writes is given back at submits: one every so many bytes. */
const SUBMIT_BYTES = 64 * 2 ** 20;
const F16_INFINITY = 0x7c00;
const BF16_INFINITY = 0x7f80;

/**
 * Converts rows as they lie in a file and uploads them, in chunks.
 * @throws {GpuError} `invalid_shape` when they are not whole rows of the weight, cannot become what it is, or a value is
 * not finite or does not fit
 */
export function writeRows(tools: WriteTools, weight: Weight, { firstRow, source, data }: SourceRows): void {
  const { gpu } = tools.commands;
  const rowBytes = sourceBytes(source, weight.cols);
  const rows = data.byteLength / rowBytes;
  if (!Number.isInteger(rows) || !Number.isInteger(rowBytes) || firstRow < 0 || firstRow + rows > weight.rows) {
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
      check(weight.label, part.dtype, source, bytes);
      writePart(tools, { part, cols: weight.cols, firstRow: row - part.firstRow, rows: last - row, source, bytes });
      unsubmitted += bytes.byteLength;
      if (unsubmitted >= SUBMIT_BYTES) {
        gpu.device.queue.submit([]);
        unsubmitted = 0;
      }
    }
  }
}

function writePart({ commands, scratch }: WriteTools, rows: PartRows): void {
  const { part: { tensor, dtype }, cols, firstRow, source, bytes } = rows;
  if (isQuantized(dtype)) {
    const raw = scratch.take("rows of a file", "u32", [Math.ceil(bytes.byteLength / 4)]);
    commands.write(raw, bytes);
    packRows(commands, { ...rows, raw });
    commands.submit();
    return;
  }
  if (isBlockType(source)) {
    throw new GpuError("invalid_shape", `Cannot write ${tensor.label}: ${source} cannot become ${dtype}`);
  }
  // A software adapter would convert with the same processor, slower.
  if (dtype === "f16" && source === "BF16" && !commands.gpu.info.software && bytes.byteLength > 0) {
    const raw = scratch.take("rows of a file", "u32", [Math.ceil(bytes.byteLength / 4)]);
    commands.write(raw, bytes);
    convertBf16Rows(commands, { ...rows, raw });
    commands.submit();
    return;
  }
  commands.gpu.write(tensor, convert(dtype, source, bytes), weightBytes(dtype, firstRow * cols));
}

/** Whether every value is finite and within the range of f16: such data may be kept as f16. */
export function fitsHalf(source: PlainDType, data: Uint8Array<ArrayBuffer>): boolean {
  if (source === "F32") return largest(asFloats(data)) <= MAX_HALF;
  return halvesBelow(data, source === "F16" ? F16_INFINITY : MAX_BF16_IN_HALF + 1);
}

/** The numbers of a plain type, exactly. */
export function toFloats(source: PlainDType, data: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  if (source === "F32") return asFloats(data);
  return source === "F16" ? fromHalf(asHalves(data)) : bf16ToF32(asHalves(data));
}

function allFinite(source: PlainDType, data: Uint8Array<ArrayBuffer>): boolean {
  return source === "F32" ? floatsFinite(data) : halvesBelow(data, source === "F16" ? F16_INFINITY : BF16_INFINITY);
}

function check(label: string, dtype: WeightDType, source: SourceDType, data: Uint8Array<ArrayBuffer>): void {
  const fail = (bound: string, found: number) => {
    throw new GpuError("invalid_shape", `Cannot write ${label} as ${dtype}: expected ${bound}, found ${found}`);
  };
  if (isBlockType(source)) {
    for (const { most, found } of largestScales(source, data)) {
      if (!(found <= most)) fail(`scales up to ${most}`, found);
    }
  } else if (!(dtype === "f32" ? allFinite(source, data) : fitsHalf(source, data))) {
    fail(dtype === "f32" ? "finite values" : `values up to ${MAX_HALF}`, largest(toFloats(source, data)));
  }
}

/** Of each scale of a block type, the largest magnitude in the data, and the one that keeps all weights within f16. */
function largestScales(source: BlockDType, data: Uint8Array): { readonly most: number; readonly found: number }[] {
  const { bytes, scales } = BLOCKS[source];
  return scales.map(([offset, largestFactor]) => {
    let pattern = 0;
    for (let at = offset; at < data.length; at += bytes) {
      const magnitude = (data[at] as number) | ((data[at + 1] as number) & 0x7f) << 8;
      if (magnitude > pattern) pattern = magnitude;
    }
    const [found = 0] = fromHalf(Uint16Array.of(pattern));
    return { most: MAX_HALF / largestFactor, found: Number.isNaN(found) ? Infinity : found };
  });
}

function convert(
  dtype: "f16" | "f32",
  source: PlainDType,
  data: Uint8Array<ArrayBuffer>,
): ArrayBufferView<ArrayBuffer> {
  if (dtype === "f32") return source === "F32" ? data : toFloats(source, data);
  if (source === "F16") return data;
  return source === "BF16" ? bf16ToHalf(asHalves(data)) : toHalf(asFloats(data));
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
