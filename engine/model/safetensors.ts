/**
 * The weights of a model directory: one `model.safetensors`, or shards named by `model.safetensors.index.json`. Opens
 * the files, checks them against each other, and reads tensors whole or in pieces, so that a tensor of a gigabyte need
 * not fit in memory. Knows names, types and bytes; knows nothing of layers.
 */

import { createHash } from "node:crypto";

import { EngineError } from "../errors.ts";
import { JsonObject, shown } from "./json_file.ts";
import { fileExists, readModelFile } from "./model_file.ts";
import type { PlacedTensor, TensorInfo } from "./safetensors_header.ts";
import { Shard } from "./shard.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** What {@link JsonObject.read} takes of a configuration. */
const MAX_CONFIG_BYTES = 16 << 20;

/** The digest takes tensors up to this size whole, and this much of larger ones, in as many pieces. */
const SAMPLE_BYTES = 1 << 20;
const SAMPLE_PIECES = 16;

interface Placed {
  readonly shard: Shard;
  readonly tensor: PlacedTensor;
}

/** The open weight files of one model. Owns the file handles: {@link TensorFiles.close} frees them. */
export class TensorFiles implements Disposable {
  /** Every tensor by name: type, shape and length. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #directory: string;
  readonly #shards: readonly Shard[];
  readonly #places: ReadonlyMap<string, Placed>;

  /**
   * Made by {@link openSafetensors}.
   *
   * @param shards becomes the property of this object
   */
  constructor(directory: string, shards: readonly Shard[], places: ReadonlyMap<string, Placed>) {
    this.#directory = directory;
    this.#shards = shards;
    this.#places = places;
    this.tensors = new Map([...places].map(([name, { tensor }]) => [name, tensor]));
  }

  /**
   * Reads a whole tensor.
   *
   * @param into where to put it, exactly as long as the tensor; by default a fresh, aligned array
   * @throws {EngineError} `invalid_model` when there is no such tensor or its file has shrunk
   */
  async read(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const { shard, tensor } = this.#place(name);
    const target = into ?? new Uint8Array(tensor.bytes);
    if (target.length !== tensor.bytes) {
      throw new RangeError(`Cannot read tensor ${name}: ${tensor.bytes} bytes do not fit exactly in ${target.length}`);
    }
    await shard.read(tensor.position, target);
    return target;
  }

  /**
   * Reads part of a tensor into a fresh array.
   *
   * @param byteOffset from the start of the tensor
   * @param length in bytes
   * @throws {EngineError} `invalid_model` when there is no such tensor or its file has shrunk
   */
  async readRange(name: string, byteOffset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const { shard, tensor } = this.#place(name);
    if (!(byteOffset >= 0 && length >= 0 && byteOffset + length <= tensor.bytes)) {
      const range = `${byteOffset} + ${length}`;
      throw new RangeError(`Cannot read tensor ${name}: bytes ${range} are outside its ${tensor.bytes}`);
    }
    const target = new Uint8Array(length);
    await shard.read(tensor.position + byteOffset, target);
    return target;
  }

  /** The file that holds a tensor, for messages; undefined when there is no such tensor. */
  pathOf(name: string): string | undefined {
    return this.#places.get(name)?.shard.path;
  }

  /**
   * SHA-256 (hex) by which the workers of a group know that they hold the same model: over `config.json`, the names,
   * types and shapes of all tensors in order of name, and their bytes; of tensors above 1 MiB only 16 evenly spaced
   * pieces of 64 KiB. So it does not depend on sharding and takes a fraction of a second for any model; it tells
   * models apart, but does not find a flipped bit.
   *
   * @throws {EngineError} `invalid_model` when a file cannot be read
   */
  async digest(): Promise<string> {
    const hash = createHash("sha256").update(await readModelFile(`${this.#directory}/config.json`, MAX_CONFIG_BYTES));
    const byName = [...this.#places].sort(([a], [b]) => a < b ? -1 : 1);
    for (const [name, { tensor }] of byName) {
      hash.update(JSON.stringify([name, tensor.dtype, tensor.shape]));
      const pieces = tensor.bytes > SAMPLE_BYTES ? SAMPLE_PIECES : 1;
      const length = Math.min(tensor.bytes, SAMPLE_BYTES) / pieces;
      for (let piece = 0; piece < pieces; piece++) {
        const offset = pieces === 1 ? 0 : Math.floor((tensor.bytes - length) * piece / (pieces - 1));
        hash.update(await this.readRange(name, offset, length));
      }
    }
    return hash.digest("hex");
  }

  /** Closes the files; no read may be under way. */
  close(): void {
    for (const shard of this.#shards) shard.close();
  }

  /** The same as {@link TensorFiles.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #place(name: string): Placed {
    const place = this.#places.get(name);
    if (place === undefined) {
      throw new EngineError("invalid_model", `Cannot read ${this.#directory}: expected a tensor ${name}, found none`);
    }
    return place;
  }
}

/**
 * Opens the weights of a model directory and checks all headers; reads no tensor yet.
 *
 * @throws {EngineError} `invalid_model` naming file, tensor, expected and found; `unsupported_model` for a type we do
 * not read
 */
export async function openSafetensors(directory: string): Promise<TensorFiles> {
  const index = await fileExists(`${directory}/${SINGLE}`) ? undefined : await readIndex(directory);
  const names = index === undefined ? [SINGLE] : [...new Set(index.values())].sort();
  const shards: Shard[] = [];
  try {
    const inShard = new Map<string, ReadonlyMap<string, Placed>>();
    for (const name of names) {
      const shard = await Shard.open(`${directory}/${name}`);
      shards.push(shard);
      inShard.set(name, new Map((await shard.tensors()).map((tensor) => [tensor.name, { shard, tensor }])));
    }
    return new TensorFiles(directory, shards, gather(directory, index, inShard));
  } catch (error) {
    for (const shard of shards) shard.close();
    throw error;
  }
}

/** Tensor name → file name. */
async function readIndex(directory: string): Promise<ReadonlyMap<string, string>> {
  const path = `${directory}/${INDEX}`;
  if (!await fileExists(path)) {
    throw new EngineError("invalid_model", `Cannot read ${directory}: expected ${SINGLE} or ${INDEX}, found neither`);
  }
  const file = await JsonObject.read(path);
  const weightMap = file.object("weight_map");
  if (weightMap === undefined) throw file.invalid("weight_map", "an object");
  const index = new Map<string, string>();
  for (const [tensor, shard] of weightMap.entries()) {
    // A plain name: an index must not reach outside its directory.
    if (typeof shard !== "string" || !/^[^/\\]+\.safetensors$/.test(shard)) {
      throw weightMap.invalid(tensor, "the name of a .safetensors file beside the index");
    }
    index.set(tensor, shard);
  }
  if (index.size === 0) throw file.invalid("weight_map", "an object with at least one tensor");
  return index;
}

function gather(
  directory: string,
  index: ReadonlyMap<string, string> | undefined,
  inShard: ReadonlyMap<string, ReadonlyMap<string, Placed>>,
): ReadonlyMap<string, Placed> {
  if (index === undefined) return inShard.get(SINGLE) ?? new Map();
  const places = new Map<string, Placed>();
  for (const [tensor, shard] of index) {
    const place = inShard.get(shard)?.get(tensor);
    if (place === undefined) {
      const where = `${directory}/${shard}`;
      throw new EngineError(
        "invalid_model",
        `Cannot read ${where}: ${INDEX} expects tensor ${shown(tensor)} here, found none`,
      );
    }
    places.set(tensor, place);
  }
  return places;
}
