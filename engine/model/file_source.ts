/**
 * Weights from the tensors of a model's files: read ahead, converted on the GPU, several uploads in flight. Knows names, shapes
 * and types; knows nothing of what a tensor is for.
 */

import { at } from "../../kernels/at.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { MAX_HALF } from "../../kernels/half.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { QuantizedDType, WeightDType } from "../../kernels/weights/format.ts";
import { isBlockType, keptAs, sourceBytes, type SourceDType } from "../../kernels/weights/source_types.ts";
import { createWeight, hasFloatParts, stackWeights, type Weight } from "../../kernels/weights/weight.ts";
import { toFloats, writeRows, type WriteTools } from "../../kernels/weights/write_rows.ts";
import { EngineError } from "../errors.ts";
import type { TensorFiles, TensorInfo } from "./tensor_files.ts";
import { quantizedTo, type StackShape, type WeightSource } from "./weight_sources.ts";

/** The rows of one tensor among those of a weight. */
interface WeightRows {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly source: SourceDType;
}

/** Rows of a tensor on their way. */
interface Chunk {
  readonly part: WeightRows;
  /** Of the tensor in its weight, and of the chunk in its tensor. */
  readonly firstRow: number;
  readonly row: number;
  readonly data: Promise<Uint8Array<ArrayBuffer>>;
}

/** Bytes read from a file before they are handed to the GPU. */
const CHUNK_BYTES = 16 << 20;

/**
 * Bytes handed to the GPU before it is waited for: their staging memory, and twice a chunk, is what a load takes on the host.
 * With one chunk, the GPU would idle while the next is handed over, and the host while it is converted.
 */
const IN_FLIGHT_BYTES = 64 << 20;

/** The tensors of a model directory. */
export class FileSource implements WeightSource {
  readonly #gpu: Gpu;
  readonly #tools: WriteTools;
  readonly #files: TensorFiles;
  readonly #quantize: QuantizedDType | undefined;
  readonly #onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly #totalBytes: number;
  #doneBytes = 0;
  #inFlightBytes = 0;
  /** The matrices that were asked for, one after the other. */
  #streaming: Promise<void> = Promise.resolve();
  /** All reads that were begun, whatever came of them. */
  #reading: Promise<void> = Promise.resolve();

  constructor(
    commands: Commands,
    files: TensorFiles,
    { quantize, onProgress }: {
      readonly quantize?: QuantizedDType | undefined;
      readonly onProgress: (doneBytes: number, totalBytes: number) => void;
    },
  ) {
    this.#quantize = quantize;
    this.#gpu = commands.gpu;
    this.#tools = { commands, scratch: new Scratch(commands) };
    this.#files = files;
    this.#onProgress = onProgress;
    this.#totalBytes = [...files.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * A weight that is filled by the time the next call, or `finish`, returns; its first bytes are being read. Each kept as its file has it, plain ones quantised when that is asked for, else as f16, or as f32 when one of them is.
   * @throws {EngineError} `invalid_model` for a missing tensor, a wrong shape or a number that is not finite or beyond f16, `unsupported_model`
   * for a shape that no kernel computes
   */
  async matrix(names: readonly string[], { rows, cols, isTable = false }: StackShape): Promise<Weight> {
    const parts = names.map((name, i) => {
      const shape = [at(rows, i), cols];
      return { name, rows: at(rows, i), cols, source: this.#expect(name, shape).dtype };
    });
    const weight = naming(names, () => this.#create(names, parts, quantizedTo(this.#quantize, { cols, isTable })));
    const before = this.#streaming;
    const chunks = this.#chunksOf(parts);
    const first = chunks.next();
    this.#streaming = before.then(() => this.#fill(weight, { first, chunks }));
    // A failure is thrown by the next call, or by `finish`.
    this.#streaming.catch(() => {});
    await before;
    return weight;
  }

  /**
   * Waits until all weights are filled.
   * @throws {EngineError} as `matrix` @throws {GpuError} `out_of_gpu_memory`, `device_lost`
   */
  async finish(): Promise<void> {
    await this.#streaming;
    await this.#settle();
  }

  /** Waits for reads that were begun, and frees working memory; the weights stay. */
  async close(): Promise<void> {
    await this.#streaming.catch(() => {});
    await this.#reading;
    this.#tools.scratch.close();
  }

  /** Consecutive ones of one type share their parts. */
  #create(names: readonly string[], parts: readonly WeightRows[], quantized: WeightDType | undefined): Weight {
    const runs: { dtype: WeightDType; rows: number; cols: number }[] = [];
    const plain = quantized ?? (parts.some(({ source }) => source === "F32") ? "f32" : "f16");
    for (const { rows, cols, source } of parts) {
      const dtype = isBlockType(source) ? keptAs(source) : plain;
      const last = runs.at(-1);
      if (last?.dtype === dtype) last.rows += rows;
      else runs.push({ dtype, rows, cols });
    }
    const label = names.join(" + ");
    return stackWeights(label, runs.map((shape) => createWeight(this.#gpu, label, shape)));
  }

  /** @throws {EngineError} `invalid_model` for a missing tensor, a wrong shape or a number that is not finite */
  async vector(names: readonly string[], lengths: readonly number[], offset = 0): Promise<Tensor> {
    const values = new Float32Array(lengths.reduce((a, b) => a + b, 0));
    let end = 0;
    for (const [i, name] of names.entries()) {
      const { dtype } = this.#expect(name, [at(lengths, i)]);
      const bytes = await this.#files.read(name);
      if (isBlockType(dtype)) throw this.#unexpected(name, `plain numbers, found ${dtype}`);
      const decoded = toFloats(dtype, bytes);
      const unfit = this.#unfit(name, decoded, { most: Infinity, row: 0, cols: decoded.length });
      if (unfit !== undefined) throw unfit;
      values.set(offset === 0 ? decoded : decoded.map((value) => value + offset), end);
      end += at(lengths, i);
      this.#progress(bytes.byteLength);
    }
    const tensor = this.#gpu.tensor(names.join(" + "), "f32", [values.length]);
    this.#gpu.write(tensor, values);
    return tensor;
  }

  /** The rows of matrices as reads that are begun one by one; each is begun when the one before is handed over. */
  *#chunksOf(parts: readonly WeightRows[]): Generator<Chunk, undefined> {
    let firstRow = 0;
    for (const part of parts) {
      const rowBytes = sourceBytes(part.source, part.cols);
      const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
      for (let row = 0; row < part.rows; row += step) {
        const data = this.#read(part.name, row * rowBytes, Math.min(step, part.rows - row) * rowBytes);
        yield { part, firstRow, row, data };
      }
      firstRow += part.rows;
    }
  }

  #read(name: string, at: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const data = this.#files.readRange(name, at, length);
    const ended = data.then(() => {}, () => {});
    this.#reading = Promise.all([this.#reading, ended]).then(() => {});
    return data;
  }

  /** One chunk ahead: the file is read while the chunk before is checked and handed over. */
  async #fill(
    weight: Weight,
    { first, chunks }: { readonly first: IteratorResult<Chunk>; readonly chunks: Iterator<Chunk> },
  ): Promise<void> {
    for (let next = first; next.done !== true;) {
      const { data, ...place } = next.value;
      const bytes = await data;
      next = chunks.next();
      this.#write(place.part, weight, { ...place, data: bytes });
      this.#progress(bytes.byteLength);
      this.#inFlightBytes += bytes.byteLength;
      // Staging memory of uploads is freed only by later submissions, and errors surface here.
      if (this.#inFlightBytes >= IN_FLIGHT_BYTES) await this.#settle();
    }
  }

  async #settle(): Promise<void> {
    this.#inFlightBytes = 0;
    await this.#gpu.settle();
  }

  #write(
    { name, cols, source }: WeightRows,
    weight: Weight,
    { firstRow, row, data }: {
      readonly firstRow: number;
      readonly row: number;
      readonly data: Uint8Array<ArrayBuffer>;
    },
  ): void {
    try {
      writeRows(this.#tools, weight, { firstRow: firstRow + row, data, source });
    } catch (cause) {
      if (!(cause instanceof GpuError) || cause.code !== "invalid_shape") throw cause;
      if (isBlockType(source)) throw this.#unexpected(name, cause.message);
      const most = hasFloatParts(weight) ? Infinity : MAX_HALF;
      throw this.#unfit(name, toFloats(source, data), { most, row, cols }) ?? cause;
    }
  }

  /** The error for the first number of a tensor that is not finite or too large, if there is one. */
  #unfit(
    name: string,
    values: Float32Array,
    { most, row, cols }: { readonly most: number; readonly row: number; readonly cols: number },
  ): EngineError | undefined {
    const at = values.findIndex((value) => !(Math.abs(value) <= most && Number.isFinite(value)));
    if (at < 0) return undefined;
    const expected = most === Infinity ? "finite numbers" : `finite numbers up to ${most}`;
    return new EngineError(
      "invalid_model",
      `Cannot load ${this.#files.pathOf(name)}: tensor ${name}: expected ${expected}, found ${values[at]} ` +
        `at [${row + Math.floor(at / cols)}, ${at % cols}]`,
    );
  }

  #expect(name: string, shape: readonly number[]): TensorInfo {
    const found = this.#files.tensors.get(name);
    if (found === undefined) {
      throw new EngineError("invalid_model", `Cannot load tensor ${name}: it is in no weight file`);
    }
    if (found.shape.join() !== shape.join()) {
      throw new EngineError(
        "invalid_model",
        `Cannot load ${this.#files.pathOf(name)}: tensor ${name} must be [${shape.join(", ")}], found [${
          found.shape.join(", ")
        }]`,
      );
    }
    return found;
  }

  #unexpected(name: string, what: string): EngineError {
    return new EngineError("invalid_model", `Cannot load ${this.#files.pathOf(name)}: tensor ${name}: ${what}`);
  }

  #progress(bytes: number): void {
    this.#doneBytes += bytes;
    this.#onProgress(this.#doneBytes, this.#totalBytes);
  }
}

/** What a kernel refuses about a weight's shape is the fault of the files: the error names their tensors. */
function naming<T>(names: readonly string[], make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (!(cause instanceof GpuError) || cause.code !== "invalid_shape") throw cause;
    throw new EngineError("unsupported_model", `Cannot load tensor ${names.join(" + ")}: ${cause.message}`, { cause });
  }
}
