/**
 * Rows of tensors from files onto the GPU: read ahead, several uploads in flight. Plain 16-bit numbers are read into memory that
 * the GPU copies from, and checked and converted there; all others are checked and handed over by the host, as everything is
 * where the adapter is the host's own processor or mapped memory a copy. Knows bytes and rows; `file_source.ts` says what is wrong
 * with them.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { UploadRing, type UploadSlot } from "../../kernels/upload_ring.ts";
import { arePlacedOnGpu, placeHalves } from "../../kernels/weights/place_halves.ts";
import { sourceBytes, type SourceDType } from "../../kernels/weights/source_types.ts";
import type { Weight } from "../../kernels/weights/weight.ts";
import type { WriteTools } from "../../kernels/weights/write_rows.ts";
import type { TensorFiles } from "./tensor_files.ts";

/** The rows of one tensor among those of a weight. */
export interface TensorRows {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly source: SourceDType;
}

/** Rows that the host hands over. */
export interface HostRows {
  readonly weight: Weight;
  /** Of the weight, and of the tensor. */
  readonly firstRow: number;
  readonly row: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** What is done with rows on their way. */
export interface RowStreamOptions {
  readonly onBytes: (bytes: number) => void;
  /** Hands rows over on the host: `writeRows` with errors that name the tensor. */
  readonly write: (tensor: TensorRows, rows: HostRows, tools: WriteTools) => void;
}

/** Rows of a tensor on their way. */
interface Chunk extends Omit<HostRows, "data"> {
  readonly tensor: TensorRows;
  readonly rows: number;
  /** Of tensors that are checked on the GPU. */
  readonly flag: number | undefined;
  readonly filled: Promise<Filled>;
}

/** A chunk's bytes, and the upload memory that they lie in. */
interface Filled {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly slot: UploadSlot | undefined;
}

/** Bytes read from a file before they are handed to the GPU. */
const CHUNK_BYTES = 16 << 20;

/** Two of a weight and the first of the next one are filled, or wait for that; the GPU reads the others. */
const SLOTS = 6;

/**
 * Bytes handed to the GPU by the host before it is waited for: their staging memory, and twice a chunk, is what a load takes on
 * the host. With one chunk, the GPU would idle while the next is handed over, and the host while it is converted.
 */
const IN_FLIGHT_BYTES = 64 << 20;

/** Streams the rows of one weight after the other. */
export class RowStream {
  readonly #gpu: Gpu;
  readonly #tools: WriteTools;
  readonly #files: TensorFiles;
  readonly #options: RowStreamOptions;
  #ring: UploadRing | undefined;
  #flags: Tensor | undefined;
  /** By their flags. */
  readonly #flagged: TensorRows[] = [];
  /** Memory of chunks that were handed over by the host. */
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  #inFlightBytes = 0;
  /** The weights that were asked for, one after the other. */
  #streaming: Promise<void> = Promise.resolve();
  /** All reads that were begun, whatever came of them. */
  #reading: Promise<void> = Promise.resolve();

  constructor(commands: Commands, files: TensorFiles, options: RowStreamOptions) {
    this.#gpu = commands.gpu;
    this.#tools = { commands, scratch: new Scratch(commands) };
    this.#files = files;
    this.#options = options;
  }

  /**
   * Begins to fill a weight with the rows of tensors, one after the other; it is filled when the next call, or `finish`, returns.
   * @throws what went wrong with the weight before
   */
  async fill(weight: Weight, tensors: readonly TensorRows[]): Promise<void> {
    const before = this.#streaming;
    const chunks = this.#chunksOf(weight, tensors);
    const first = chunks.next();
    this.#streaming = before.then(() => this.#handOver(first, chunks));
    // A failure is thrown by the next call, or by `finish`.
    this.#streaming.catch(() => {});
    await before;
  }

  /**
   * Waits until all weights are filled.
   * @returns tensors with numbers that are not finite or too large, as far as the GPU found them
   * @throws {GpuError} `out_of_gpu_memory`, `device_lost`
   */
  async finish(): Promise<readonly TensorRows[]> {
    await this.#streaming;
    await this.#gpu.settle();
    if (this.#flags === undefined) return [];
    const flags = await this.#gpu.readU32({ tensor: this.#flags });
    return this.#flagged.filter((_, flag) => flags[flag] !== 0);
  }

  /** Waits for reads that were begun, and frees working memory; the weights stay. */
  async close(): Promise<void> {
    await this.#streaming.catch(() => {});
    await this.#reading;
    await this.#ring?.close();
    if (this.#flags !== undefined) this.#gpu.free(this.#flags);
    this.#tools.scratch.close();
  }

  /** The rows of tensors as reads that are begun one by one; each is begun when the one before is handed over. */
  *#chunksOf(weight: Weight, tensors: readonly TensorRows[]): Generator<Chunk, undefined> {
    let firstRow = 0;
    for (const tensor of tensors) {
      const rowBytes = sourceBytes(tensor.source, tensor.cols);
      const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
      const onGpu = this.#checksOnGpu && step * rowBytes <= CHUNK_BYTES && arePlacedOnGpu(tensor.source, weight);
      const flag = onGpu ? this.#flagged.push(tensor) - 1 : undefined;
      for (let row = 0; row < tensor.rows; row += step) {
        const rows = Math.min(step, tensor.rows - row);
        const range = { at: row * rowBytes, length: rows * rowBytes };
        const filled = this.#read(tensor.name, range, onGpu ? this.#slots().take() : undefined);
        yield { tensor, weight, firstRow: firstRow + row, row, rows, flag, filled };
      }
      firstRow += tensor.rows;
    }
  }

  get #checksOnGpu(): boolean {
    return !this.#gpu.info.software && this.#gpu.traits.mapsInPlace;
  }

  #slots(): UploadRing {
    return this.#ring ??= new UploadRing(this.#gpu, { slots: SLOTS, bytes: CHUNK_BYTES });
  }

  #read(
    name: string,
    { at, length }: { readonly at: number; readonly length: number },
    taking: Promise<UploadSlot> | undefined,
  ): Promise<Filled> {
    const filled = this.#fillMemory(name, { at, length }, taking);
    const ended = filled.then(() => {}, () => {});
    this.#reading = Promise.all([this.#reading, ended]).then(() => {});
    return filled;
  }

  async #fillMemory(
    name: string,
    { at, length }: { readonly at: number; readonly length: number },
    taking: Promise<UploadSlot> | undefined,
  ): Promise<Filled> {
    const slot = await taking;
    const memory = slot?.bytes ?? (length > CHUNK_BYTES ? undefined : this.#spare.pop());
    const into = memory ?? new Uint8Array(Math.max(length, CHUNK_BYTES));
    const bytes = await this.#files.readRange(name, at, length, into);
    // Some files have their rows in another order.
    if (slot !== undefined && bytes.buffer !== slot.bytes.buffer) slot.bytes.set(bytes);
    return { bytes, slot };
  }

  /** One chunk ahead: the file is read while the chunk before is handed over. */
  async #handOver(first: IteratorResult<Chunk>, chunks: Iterator<Chunk>): Promise<void> {
    for (let next = first; next.done !== true;) {
      const chunk = next.value;
      const filled = await chunk.filled;
      next = chunks.next();
      this.#write(chunk, filled);
      this.#options.onBytes(filled.bytes.byteLength);
      this.#inFlightBytes += filled.bytes.byteLength;
      if (this.#inFlightBytes < IN_FLIGHT_BYTES) continue;
      this.#inFlightBytes = 0;
      // Staging memory of the host's writes is freed only by later submissions; errors surface in both.
      if (filled.slot === undefined) await this.#gpu.settle();
      else await this.#gpu.check();
    }
  }

  #write({ tensor, weight, firstRow, row, rows, flag }: Chunk, { bytes, slot }: Filled): void {
    if (slot === undefined || flag === undefined) {
      this.#options.write(tensor, { weight, firstRow, row, data: bytes }, this.#tools);
      if (bytes.buffer.byteLength === CHUNK_BYTES) this.#spare.push(new Uint8Array(bytes.buffer));
      return;
    }
    const { commands } = this.#tools;
    const source = tensor.source === "BF16" ? "BF16" : "F16";
    this.#flags ??= this.#gpu.tensor("flags of tensors", "u32", [this.#files.tensors.size]);
    this.#slots().handOver(slot);
    placeHalves(this.#tools, weight, { source, staging: slot.staging, firstRow, rows, flags: this.#flags, flag });
    commands.submit();
    this.#slots().giveBack(slot);
  }
}
