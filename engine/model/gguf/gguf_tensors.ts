/**
 * The tensors of a GGUF model under the names, and in the order of rows, of a Hugging Face checkpoint. Rows of queries and
 * keys of Llama files lie in pairs, as their rotary embedding turns neighbours; they are put back here.
 */

import { sourceBytes } from "../../../kernels/weights/source_types.ts";
import { EngineError } from "../../errors.ts";
import { expectRange, sampleDigest, type TensorFiles, type TensorInfo } from "../tensor_files.ts";
import { configOf, familyOf } from "./gguf_config.ts";
import type { GgufFiles, GgufTensor } from "./gguf_files.ts";
import { checkpointName } from "./tensor_names.ts";

/** Read with the configuration. */
const ROPE_DIVISORS = "rope_freqs.weight";

interface NamedTensor extends GgufTensor {
  /** Rows of a head when they lie in pairs. */
  readonly pairedRows: number | undefined;
}

/** The open files of a GGUF model, as weights are loaded from them. */
export class GgufTensors implements TensorFiles {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #files: GgufFiles;
  readonly #named: ReadonlyMap<string, NamedTensor>;

  /**
   * @param files becomes the property of this object
   * @throws {EngineError} `unsupported_model` for a tensor that belongs to nothing that is computed
   */
  constructor(files: GgufFiles) {
    this.#files = files;
    const config = configOf(files);
    const headDim = config.integer("head_dim", { min: 1, max: Infinity });
    const family = familyOf(files);
    const paired = family === "llama" ? headDim : undefined;
    const named = new Map<string, NamedTensor>();
    for (const [name, found] of files.tensors) {
      if (name === ROPE_DIVISORS) continue;
      const pairedRows = /\.attn_[qk]\.weight$/.test(name) ? paired : undefined;
      named.set(checkpointName(name, { family, path: found.shard.path }), { ...found, pairedRows });
    }
    this.#named = named;
    this.tensors = new Map([...named].map(([name, { tensor }]) => [name, tensor]));
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return await this.readRange(name, 0, this.#place(name).tensor.bytes);
  }

  async readRange(
    name: string,
    byteOffset: number,
    length: number,
    into?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { tensor, pairedRows } = this.#place(name);
    expectRange(name, tensor, byteOffset, length);
    if (pairedRows === undefined) return await this.#readRaw(name, byteOffset, length, into);
    const rowBytes = sourceBytes(tensor.dtype, tensor.shape.at(-1) ?? 1);
    return await this.#readPaired(name, {
      first: byteOffset / rowBytes,
      rows: length / rowBytes,
      rowBytes,
      pairedRows,
    });
  }

  pathOf(name: string): string | undefined {
    return this.#named.get(name)?.shard.path;
  }

  async digest(): Promise<string> {
    const configuration = new TextEncoder().encode(JSON.stringify([...configOf(this.#files).entries()]));
    return await sampleDigest(configuration, {
      tensors: this.tensors,
      read: (name, byteOffset, length) => this.#readRaw(name, byteOffset, length),
    });
  }

  close(): void {
    this.#files.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #readRaw(
    name: string,
    byteOffset: number,
    length: number,
    into?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { shard, tensor } = this.#place(name);
    const target = into?.subarray(0, length) ?? new Uint8Array(length);
    await shard.read(tensor.position + byteOffset, target);
    return target;
  }

  /** Reads whole heads. In a file, row 2i + h of a head is its row i of half h. */
  async #readPaired(
    name: string,
    { first, rows, rowBytes, pairedRows }: Record<"first" | "rows" | "rowBytes" | "pairedRows", number>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const start = Math.floor(first / pairedRows) * pairedRows;
    const end = Math.ceil((first + rows) / pairedRows) * pairedRows;
    const heads = await this.#readRaw(name, start * rowBytes, (end - start) * rowBytes);
    const target = new Uint8Array(rows * rowBytes);
    for (let row = first; row < first + rows; row++) {
      const [head, within] = [Math.floor(row / pairedRows), row % pairedRows];
      const [half, i] = [Math.floor(within / (pairedRows / 2)), within % (pairedRows / 2)];
      const at = (head * pairedRows + 2 * i + half - start) * rowBytes;
      target.set(heads.subarray(at, at + rowBytes), (row - first) * rowBytes);
    }
    return target;
  }

  #place(name: string): NamedTensor {
    const place = this.#named.get(name);
    if (place !== undefined) return place;
    throw new EngineError("invalid_model", `Cannot read ${this.#files.path}: expected a tensor ${name}, found none`);
  }
}
