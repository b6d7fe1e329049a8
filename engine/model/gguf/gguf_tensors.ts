/**
 * The tensors of a GGUF model under the names, and in the order of rows, of a Hugging Face checkpoint. Rows of queries and
 * keys of Llama files lie in pairs, as their rotary embedding turns neighbours; they are put back here.
 */

import { sourceBytes } from "../../../kernels/weights/source_types.ts";
import { EngineError } from "../../errors.ts";
import { shown } from "../json_file.ts";
import { sampleDigest, type TensorFiles, type TensorInfo } from "../tensor_files.ts";
import { configOf, familyOf } from "./gguf_config.ts";
import type { GgufFiles, GgufTensor } from "./gguf_files.ts";

/** Outside the layers. */
const NAMES: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Of a layer; `weight` or `bias` follows. */
const PARTS: Readonly<Record<string, string>> = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
};

/** Read with the configuration. */
const ROPE_DIVISORS = "rope_freqs.weight";
/** Families have biases on these only. */
const BIASED = ["attn_q", "attn_k", "attn_v"];

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
    const paired = familyOf(files) === "llama" ? headDim : undefined;
    const named = new Map<string, NamedTensor>();
    for (const [name, found] of files.tensors) {
      if (name === ROPE_DIVISORS) continue;
      const pairedRows = /\.attn_[qk]\.weight$/.test(name) ? paired : undefined;
      named.set(checkpointName(name, found.shard.path), { ...found, pairedRows });
    }
    this.#named = named;
    this.tensors = new Map([...named].map(([name, { tensor }]) => [name, tensor]));
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return await this.readRange(name, 0, this.#place(name).tensor.bytes);
  }

  async readRange(name: string, byteOffset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const { tensor, pairedRows } = this.#place(name);
    if (!(byteOffset >= 0 && length >= 0 && byteOffset + length <= tensor.bytes)) {
      const range = `${byteOffset} + ${length}`;
      throw new RangeError(`Cannot read tensor ${name}: bytes ${range} are outside its ${tensor.bytes}`);
    }
    if (pairedRows === undefined) return await this.#readRaw(name, byteOffset, length);
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

  async #readRaw(name: string, byteOffset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const { shard, tensor } = this.#place(name);
    const target = new Uint8Array(length);
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

function checkpointName(name: string, path: string): string {
  const plain = NAMES[name];
  if (plain !== undefined) return plain;
  const [, layer, part = "", kind] = /^blk\.(\d{1,4})\.([a-z_]+)\.(weight|bias)$/.exec(name) ?? [];
  const known = PARTS[part];
  if (layer !== undefined && known !== undefined && (kind === "weight" || BIASED.includes(part))) {
    return `model.layers.${Number(layer)}.${known}.${kind}`;
  }
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${path}: tensor ${shown(name)} belongs to nothing that Llama, Qwen2 or Qwen3 compute`,
  );
}
