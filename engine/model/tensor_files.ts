/**
 * What weights are loaded from: tensors by the names that Hugging Face checkpoints give them, whichever format the files
 * have. Knows names, types and bytes; knows nothing of layers.
 */

import { createHash } from "node:crypto";

import type { SourceDType } from "../../kernels/weights/source_types.ts";

/** One tensor of a file. */
export interface TensorInfo {
  /** Type of its elements. */
  readonly dtype: SourceDType;
  /** Sizes, outermost first; empty for a single number. */
  readonly shape: readonly number[];
  /** Length of its data. */
  readonly bytes: number;
}

/** A tensor and the place of its data in the file. */
export interface PlacedTensor extends TensorInfo {
  /** As the file has it. */
  readonly name: string;
  /** Offset of its first byte in the file. */
  readonly position: number;
}

/** The open weight files of one model. Owns the file handles: {@link TensorFiles.close} frees them. */
export interface TensorFiles extends Disposable {
  /** Every tensor by name: type, shape and length. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;

  /**
   * Reads a whole tensor.
   * @throws {EngineError} `invalid_model` when there is no such tensor or its file has shrunk
   */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;

  /**
   * Reads part of a tensor.
   *
   * @param byteOffset from the start of the tensor; of a matrix, where a row begins
   * @param length in bytes; of a matrix, whole rows
   * @param into where to put them, from its start on: memory that was never touched takes ten times as long to fill as to
   * read a file from the page cache @default a fresh array
   * @throws {EngineError} `invalid_model` when there is no such tensor or its file has shrunk
   */
  readRange(
    name: string,
    byteOffset: number,
    length: number,
    into?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>>;

  /** The file that holds a tensor, for messages; undefined when there is no such tensor. */
  pathOf(name: string): string | undefined;

  /**
   * SHA-256 (hex) by which the workers of a group know that they hold the same model.
   * @throws {EngineError} `invalid_model` when a file cannot be read
   */
  digest(): Promise<string>;

  /** Closes the files; no read may be under way. */
  close(): void;
}

/**
 * Checks what `readRange` is asked for.
 * @throws {RangeError} when it lies outside of the tensor
 */
export function expectRange(name: string, { bytes }: TensorInfo, byteOffset: number, length: number): void {
  if (byteOffset >= 0 && length >= 0 && byteOffset + length <= bytes) return;
  throw new RangeError(`Cannot read tensor ${name}: bytes ${byteOffset} + ${length} are outside its ${bytes}`);
}

/** The digest takes tensors up to this size whole, and this much of larger ones, in as many pieces. */
const SAMPLE_BYTES = 1 << 20;
const SAMPLE_PIECES = 16;

/** What is read as a file has it, for {@link sampleDigest}. */
export interface SampledTensors {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly read: (name: string, byteOffset: number, length: number) => Promise<Uint8Array>;
}

/**
 * SHA-256 (hex) over a configuration, the names, types and shapes of all tensors in order of name, and their bytes; of
 * tensors above 1 MiB only 16 evenly spaced pieces of 64 KiB. So it does not depend on how files are split and takes a
 * fraction of a second for any model; it distinguishes models, but does not find a flipped bit.
 */
export async function sampleDigest(configuration: Uint8Array, { tensors, read }: SampledTensors): Promise<string> {
  const hash = createHash("sha256").update(configuration);
  const byName = [...tensors].sort(([a], [b]) => a < b ? -1 : 1);
  for (const [name, tensor] of byName) {
    hash.update(JSON.stringify([name, tensor.dtype, tensor.shape]));
    const pieces = tensor.bytes > SAMPLE_BYTES ? SAMPLE_PIECES : 1;
    const length = Math.min(tensor.bytes, SAMPLE_BYTES) / pieces;
    for (let piece = 0; piece < pieces; piece++) {
      const offset = pieces === 1 ? 0 : Math.floor((tensor.bytes - length) * piece / (pieces - 1));
      hash.update(await read(name, offset, length));
    }
  }
  return hash.digest("hex");
}
