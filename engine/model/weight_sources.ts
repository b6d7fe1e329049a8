/**
 * Where the numbers of weights come from: the tensors of a model's files, or a random stream. Knows names, shapes and
 * types; knows nothing of what a tensor is for.
 */

import { at } from "../../kernels/at.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { MAX_HALF } from "../../kernels/half.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { columnsMultiple, type QuantizedDType, type WeightDType } from "../../kernels/weights/format.ts";
import { randomWeight } from "../../kernels/weights/random_weight.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { isBlockType, keptAs, sourceBytes, type SourceDType } from "../../kernels/weights/source_types.ts";
import { createWeight, hasFloatParts, stackWeights, type Weight } from "../../kernels/weights/weight.ts";
import { toFloats, writeRows, type WriteTools } from "../../kernels/weights/write_rows.ts";
import { EngineError } from "../errors.ts";
import type { TensorFiles } from "./tensor_files.ts";
import type { TensorInfo } from "./tensor_files.ts";

/** Rows of each of the named matrices, and the columns they share. */
export interface StackShape {
  readonly rows: readonly number[];
  readonly cols: number;
  /** Whether it is the embedding or the head, which quantising to four bits hurts most: it gets eight. @default false */
  readonly isTable?: boolean;
}

/** What a model's weights are made from. */
export interface WeightSource {
  /** One matrix: the rows of the named ones, one after the other. */
  matrix(names: readonly string[], shape: StackShape): Promise<Weight>;
  /** One vector, f32: the named ones, one after the other. @param offset added to what files have. @default 0 */
  vector(names: readonly string[], lengths: readonly number[], offset?: number): Promise<Tensor>;
}

/** The rows of one tensor among those of a weight. */
interface WeightRows {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly source: SourceDType;
}

/** Bytes read from a file before they are handed to the GPU; twice this bounds the memory that a load takes on the host. */
const CHUNK_BYTES = 16 << 20;

/** The tensors of a model directory. */
export class FileSource implements WeightSource {
  readonly #gpu: Gpu;
  readonly #tools: WriteTools;
  readonly #files: TensorFiles;
  readonly #quantize: QuantizedDType | undefined;
  readonly #onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly #totalBytes: number;
  #doneBytes = 0;

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
   * Each kept as its file has it, plain ones quantised when that is asked for, else as f16, or as f32 when one of them is.
   * @throws {EngineError} `invalid_model` for a missing tensor, a wrong shape or a number that is not finite or beyond f16, `unsupported_model`
   * for a shape that no kernel computes
   */
  async matrix(names: readonly string[], { rows, cols, isTable = false }: StackShape): Promise<Weight> {
    const parts = names.map((name, i) => {
      const shape = [at(rows, i), cols];
      return { name, rows: at(rows, i), cols, source: this.#expect(name, shape).dtype };
    });
    const weight = naming(names, () => this.#create(names, parts, quantizedTo(this.#quantize, { cols, isTable })));
    let firstRow = 0;
    for (const part of parts) {
      await this.#stream(part, weight, firstRow);
      firstRow += part.rows;
    }
    return weight;
  }

  /** Frees working memory; the weights stay. */
  close(): void {
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

  async #stream(part: WeightRows, weight: Weight, firstRow: number): Promise<void> {
    const { name, rows, cols, source } = part;
    const rowBytes = sourceBytes(source, cols);
    const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
    const read = (row: number) => {
      const at = Math.min(row, rows);
      const data = this.#files.readRange(name, at * rowBytes, Math.min(step, rows - at) * rowBytes);
      // A failure is thrown where the chunk is awaited, which may be later than it happens.
      data.catch(() => {});
      return data;
    };
    // One chunk ahead: the file is read while the chunk before is checked and converted.
    let ahead = read(0);
    try {
      for (let row = 0; row < rows; row += step) {
        const data = await ahead;
        ahead = read(row + step);
        this.#write(part, weight, { firstRow, row, data });
        this.#progress(data.byteLength);
        // Staging memory of uploads is freed only by later submissions, and errors surface here.
        await this.#gpu.settle();
      }
    } finally {
      // The files may be closed after this. A read that failed has been reported, or is not needed any more.
      await ahead.catch(() => {});
    }
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

/** Numbers of a scale that keeps activations bounded; the same in every run. */
export class RandomSource implements WeightSource {
  readonly #commands: Commands;
  readonly #quantize: QuantizedDType | undefined;
  #nextSeed: number;

  constructor(
    commands: Commands,
    { seed, quantize }: { readonly seed: number; readonly quantize?: QuantizedDType | undefined },
  ) {
    this.#commands = commands;
    this.#nextSeed = seed;
    this.#quantize = quantize;
  }

  async matrix(names: readonly string[], { rows, cols, isTable = false }: StackShape): Promise<Weight> {
    const { gpu } = this.#commands;
    const dtype: WeightDType = quantizedTo(this.#quantize, { cols, isTable }) ?? "f16";
    const shape = { rows: rows.reduce((a, b) => a + b, 0), cols, dtype };
    const weight = createWeight(gpu, names.join(" + "), shape);
    // A deviation of 1/√cols keeps the variance of a normalised row through a product.
    randomWeight(this.#commands, weight, { seed: this.#nextSeed++, deviation: 1 / Math.sqrt(cols) });
    this.#commands.submit();
    await gpu.settle();
    return weight;
  }

  async vector(names: readonly string[], lengths: readonly number[]): Promise<Tensor> {
    const { gpu } = this.#commands;
    const tensor = gpu.tensor(names.join(" + "), "f32", [lengths.reduce((a, b) => a + b, 0)]);
    gpu.write(tensor, new Float32Array(tensor.byteLength / 4).fill(1));
    await gpu.check();
    return tensor;
  }
}

/** What a plain matrix becomes; undefined: it stays plain, as rows that are no whole blocks do. */
export function quantizedTo(
  quantize: QuantizedDType | undefined,
  { cols, isTable }: { readonly cols: number; readonly isTable: boolean },
): QuantizedDType | undefined {
  if (quantize === undefined) return undefined;
  const dtype = isTable && quantize === "q4" ? "q8" : quantize;
  return cols % columnsMultiple(dtype) === 0 ? dtype : undefined;
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
