/**
 * The weights of a model directory: one `model.safetensors`, or shards named by `model.safetensors.index.json`. Opens
 * the files, checks them against each other, and reads tensors whole or in pieces, so that a tensor of a gigabyte need
 * not fit in memory. Knows names, types and bytes; knows nothing of layers.
 */

import { EngineError } from "../errors.ts";
import { JsonObject, shown } from "./json_file.ts";
import { fileExists, readModelFile } from "./model_file.ts";
import { readHeader } from "./safetensors_header.ts";
import { Shard } from "./shard.ts";
import { expectRange, type PlacedTensor, sampleDigest, type TensorFiles, type TensorInfo } from "./tensor_files.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** What {@link JsonObject.read} takes of a configuration. */
const MAX_CONFIG_BYTES = 16 << 20;

interface Placed {
  readonly shard: Shard;
  readonly tensor: PlacedTensor;
}

/** The open weight files of a directory. */
export class SafetensorsFiles implements TensorFiles {
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
   * Reads part of a tensor.
   *
   * @param byteOffset from the start of the tensor
   * @param length in bytes
   * @param into where to put them, from its start on @default a fresh array
   * @throws {EngineError} `invalid_model` when there is no such tensor or its file has shrunk
   */
  async readRange(
    name: string,
    byteOffset: number,
    length: number,
    into?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { shard, tensor } = this.#place(name);
    expectRange(name, tensor, byteOffset, length);
    const target = into?.subarray(0, length) ?? new Uint8Array(length);
    await shard.read(tensor.position + byteOffset, target);
    return target;
  }

  pathOf(name: string): string | undefined {
    return this.#places.get(name)?.shard.path;
  }

  async digest(): Promise<string> {
    const configuration = await readModelFile(`${this.#directory}/config.json`, MAX_CONFIG_BYTES);
    return await sampleDigest(configuration, {
      tensors: this.tensors,
      read: (name, byteOffset, length) => this.readRange(name, byteOffset, length),
    });
  }

  close(): void {
    for (const shard of this.#shards) shard.close();
  }

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
export async function openSafetensors(directory: string): Promise<SafetensorsFiles> {
  const index = await fileExists(`${directory}/${SINGLE}`) ? undefined : await readIndex(directory);
  const names = index === undefined ? [SINGLE] : [...new Set(index.values())].sort();
  const shards: Shard[] = [];
  try {
    const inShard = new Map<string, ReadonlyMap<string, Placed>>();
    for (const name of names) {
      const shard = await Shard.open(`${directory}/${name}`);
      shards.push(shard);
      inShard.set(name, new Map((await readHeader(shard)).map((tensor) => [tensor.name, { shard, tensor }])));
    }
    return new SafetensorsFiles(directory, shards, gather(directory, index, inShard));
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
