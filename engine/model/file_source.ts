/**
 * Weights from the tensors of a model's files. Knows names, shapes and types, and says what is wrong with them; knows nothing of
 * what a tensor is for.
 */

import { at } from "../../kernels/at.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { MAX_HALF } from "../../kernels/half.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { QuantizedDType, WeightDType } from "../../kernels/weights/format.ts";
import { isBlockType, keptAs, sourceBytes } from "../../kernels/weights/source_types.ts";
import { createWeight, hasFloatParts, stackWeights, type Weight } from "../../kernels/weights/weight.ts";
import { toFloats, writeRows, type WriteTools } from "../../kernels/weights/write_rows.ts";
import { EngineError } from "../errors.ts";
import { type HostRows, RowStream, type TensorRows } from "./row_stream.ts";
import type { TensorFiles, TensorInfo } from "./tensor_files.ts";
import { quantizedTo, type StackShape, type WeightSource } from "./weight_sources.ts";

/** Bytes of a tensor that are read again at a time, to find a number in it. */
const SEARCHED_BYTES = 16 << 20;

/** The tensors of a model directory. */
export class FileSource implements WeightSource {
  readonly #gpu: Gpu;
  readonly #files: TensorFiles;
  readonly #quantize: QuantizedDType | undefined;
  readonly #onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly #totalBytes: number;
  readonly #stream: RowStream;
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
    this.#files = files;
    this.#onProgress = onProgress;
    this.#totalBytes = [...files.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    this.#stream = new RowStream(commands, files, {
      onBytes: (bytes) => this.#progress(bytes),
      write: (tensor, rows, tools) => this.#write(tensor, rows, tools),
    });
  }

  /**
   * A weight that is filled by the time the next call, or `finish`, returns; its first bytes are being read. Quantised tensors are
   * kept as their file has them, plain ones quantised when that is asked for, else as f16, or as f32 when one of them is.
   * @throws {EngineError} `invalid_model` for a missing tensor, a wrong shape or a number that is not finite or beyond f16,
   * `unsupported_model` for a shape that no kernel computes
   */
  async matrix(names: readonly string[], { rows, cols, isTable = false }: StackShape): Promise<Weight> {
    const parts = names.map((name, i) => {
      const shape = [at(rows, i), cols];
      return { name, rows: at(rows, i), cols, source: this.#expect(name, shape).dtype };
    });
    const weight = naming(names, () => this.#create(names, parts, quantizedTo(this.#quantize, { cols, isTable })));
    await this.#stream.fill(weight, parts);
    return weight;
  }

  /**
   * Waits until all weights are filled.
   * @throws {EngineError} as `matrix` @throws {GpuError} `out_of_gpu_memory`, `device_lost`
   */
  async finish(): Promise<void> {
    for (const tensor of await this.#stream.finish()) await this.#throwUnfit(tensor);
  }

  /** Waits for reads that were begun, and frees working memory; the weights stay. */
  async close(): Promise<void> {
    await this.#stream.close();
  }

  /** Consecutive ones of one type share their parts. */
  #create(names: readonly string[], parts: readonly TensorRows[], quantized: WeightDType | undefined): Weight {
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

  #write(tensor: TensorRows, rows: HostRows, tools: WriteTools): void {
    try {
      writeRows(tools, rows.weight, { firstRow: rows.firstRow, data: rows.data, source: tensor.source });
    } catch (cause) {
      if (!(cause instanceof GpuError) || cause.code !== "invalid_shape") throw cause;
      const { name, cols, source } = tensor;
      if (isBlockType(source)) throw this.#unexpected(name, cause.message);
      const most = hasFloatParts(rows.weight) ? Infinity : MAX_HALF;
      throw this.#unfit(name, toFloats(source, rows.data), { most, row: rows.row, cols }) ?? cause;
    }
  }

  /** Finds the number that the GPU has found in a tensor of 16-bit numbers. */
  async #throwUnfit({ name, cols, source }: TensorRows): Promise<void> {
    if (isBlockType(source)) return;
    const rowBytes = sourceBytes(source, cols);
    const step = Math.max(1, Math.floor(SEARCHED_BYTES / rowBytes)) * rowBytes;
    const { bytes } = this.#files.tensors.get(name) ?? { bytes: 0 };
    for (let at = 0; at < bytes; at += step) {
      const data = await this.#files.readRange(name, at, Math.min(step, bytes - at));
      const unfit = this.#unfit(name, toFloats(source, data), { most: MAX_HALF, row: at / rowBytes, cols });
      if (unfit !== undefined) throw unfit;
    }
    throw this.#unexpected(name, "a number that is not finite or beyond f16, which is no longer there");
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
