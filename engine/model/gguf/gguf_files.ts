/**
 * The files of a GGUF model: one, or the parts of a split one. Opens them and checks the parts against each other. Knows
 * file names and headers.
 */

import { EngineError } from "../../errors.ts";
import { JsonObject } from "../json_file.ts";
import { Shard } from "../shard.ts";
import type { PlacedTensor } from "../tensor_files.ts";
import { type GgufHeader, readHeader } from "./header.ts";

/** A tensor and the file that holds it. */
export interface GgufTensor {
  readonly shard: Shard;
  readonly tensor: PlacedTensor;
}

const SPLIT_NAME = /-(\d{5})-of-(\d{5})\.gguf$/;
const MAX_SPLITS = 1024;

/** Whether a model is a GGUF file rather than a directory. */
export function isGguf(model: string): boolean {
  return model.endsWith(".gguf");
}

/** All files of a model: itself, or every part when the name is that of a part, the first one first. */
export function ggufPaths(model: string): string[] {
  const [suffix, , count = ""] = SPLIT_NAME.exec(model) ?? [];
  if (suffix === undefined || Number(count) > MAX_SPLITS) return [model];
  const stem = model.slice(0, -suffix.length);
  return Array.from(
    { length: Number(count) },
    (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`,
  );
}

/** The open files of a GGUF model. */
export class GgufFiles implements Disposable {
  /** The file with the metadata. */
  readonly path: string;
  /** Of the first file. */
  readonly metadata: JsonObject;
  /** By the names that the files give them. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #shards: readonly Shard[];

  private constructor(path: string, metadata: JsonObject, shards: readonly Shard[], tensors: GgufFiles["tensors"]) {
    this.path = path;
    this.metadata = metadata;
    this.tensors = tensors;
    this.#shards = shards;
  }

  /**
   * Opens a model and checks all headers; reads no tensor yet.
   * @throws {EngineError} `invalid_model` naming file, key or tensor, and bound; `unsupported_model`
   */
  static async open(model: string): Promise<GgufFiles> {
    const shards: Shard[] = [];
    try {
      const tensors = new Map<string, GgufTensor>();
      let metadata: JsonObject | undefined;
      for (const [index, path] of ggufPaths(model).entries()) {
        const shard = await Shard.open(path);
        shards.push(shard);
        const header = await readHeader(shard);
        const own = new JsonObject(Object.fromEntries(header.metadata), path);
        metadata ??= own;
        checkSplit(own, { index, count: ggufPaths(model).length });
        gather(shard, header, tensors);
      }
      if (metadata === undefined) throw new RangeError(`Cannot open ${model}: it names no file`);
      return new GgufFiles(metadata.source, metadata, shards, tensors);
    } catch (error) {
      for (const shard of shards) shard.close();
      throw error;
    }
  }

  /** Closes the files; no read may be under way. */
  close(): void {
    for (const shard of this.#shards) shard.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function checkSplit(metadata: JsonObject, { index, count }: { readonly index: number; readonly count: number }): void {
  // A part that was renamed lacks the others; a file that was never split may say 0.
  metadata.integer("split.count", { min: count === 1 ? 0 : count, max: count }, count);
  if (count > 1) metadata.integer("split.no", { min: index, max: index });
}

function gather(shard: Shard, header: GgufHeader, tensors: Map<string, GgufTensor>): void {
  for (const tensor of header.tensors) {
    const other = tensors.get(tensor.name);
    if (other !== undefined) {
      throw new EngineError(
        "invalid_model",
        `Cannot read ${shard.path}: tensor ${tensor.name} must be in one file, found in ${other.shard.path} too`,
      );
    }
    tensors.set(tensor.name, { shard, tensor });
  }
}
