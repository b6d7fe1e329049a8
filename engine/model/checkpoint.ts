/**
 * A checkpoint, whichever of two forms it has: a Hugging Face directory, or a GGUF file. Gives both as the JSON objects
 * and tensors of the former, so that everything else knows one form only.
 */

import { configOf, ropeDivisorsOf } from "./gguf/gguf_config.ts";
import { GgufFiles, ggufPaths, isGguf } from "./gguf/gguf_files.ts";
import { GgufTensors } from "./gguf/gguf_tensors.ts";
import { tokenizerConfigOf, tokenizerOf } from "./gguf/gguf_tokenizer.ts";
import { JsonObject } from "./json_file.ts";
import { fileExists } from "./model_file.ts";
import { openSafetensors } from "./safetensors.ts";
import type { TensorFiles } from "./tensor_files.ts";

/** What a checkpoint says about a model's shape. */
export interface ConfigFiles {
  /** `config.json` */
  readonly config: JsonObject;
  /** `generation_config.json`, if there is one. */
  readonly generation: JsonObject | undefined;
  /** Divisors of the rotary frequencies, in place of a scaling. */
  readonly ropeDivisors: readonly number[] | undefined;
}

/** What a checkpoint says about text. */
export interface TokenizerFiles {
  /** `tokenizer.json` */
  readonly tokenizer: JsonObject;
  /** `tokenizer_config.json` */
  readonly config: JsonObject;
}

/** What calibration writes and engines read. */
export const CALIBRATION_FILE = "tidepool.json";

/** Files of 250,000 tokens have 35 MB. */
const MAX_TOKENIZER_BYTES = 128 << 20;

/** @throws {EngineError} `invalid_model`, `unsupported_model` naming the file, the field or key, and what was expected */
export async function readConfigFiles(model: string): Promise<ConfigFiles> {
  if (isGguf(model)) {
    using files = await GgufFiles.open(model);
    const config = configOf(files);
    const headDim = config.integer("head_dim", { min: 1, max: Infinity });
    return { config, generation: undefined, ropeDivisors: await ropeDivisorsOf(files, headDim) };
  }
  const config = await JsonObject.read(`${model}/config.json`);
  return { config, generation: await readGenerationConfig(model), ropeDivisors: undefined };
}

/** `generation_config.json`, if there is one; a GGUF file has nothing in its place. @throws {EngineError} as above */
export async function readGenerationConfig(model: string): Promise<JsonObject | undefined> {
  if (isGguf(model)) return undefined;
  const path = `${model}/generation_config.json`;
  return await fileExists(path) ? await JsonObject.read(path) : undefined;
}

/** @throws {EngineError} `invalid_model`, `unsupported_model` as above */
export async function readTokenizerFiles(model: string): Promise<TokenizerFiles> {
  if (isGguf(model)) {
    using files = await GgufFiles.open(model);
    return { tokenizer: tokenizerOf(files.metadata), config: tokenizerConfigOf(files.metadata) };
  }
  return {
    tokenizer: await JsonObject.read(`${model}/tokenizer.json`, MAX_TOKENIZER_BYTES),
    config: await readTokenizerConfig(model),
  };
}

/** `tokenizer_config.json` alone. @throws {EngineError} `invalid_model`, `unsupported_model` as above */
export async function readTokenizerConfig(model: string): Promise<JsonObject> {
  if (!isGguf(model)) return await JsonObject.read(`${model}/tokenizer_config.json`);
  using files = await GgufFiles.open(model);
  return tokenizerConfigOf(files.metadata);
}

/**
 * Opens the weights of a model and checks all headers; reads no tensor yet.
 * @throws {EngineError} `invalid_model` naming file, tensor, expected and found; `unsupported_model` for a type that is
 * not read
 */
export async function openTensors(model: string): Promise<TensorFiles> {
  if (!isGguf(model)) return await openSafetensors(model);
  const files = await GgufFiles.open(model);
  try {
    return new GgufTensors(files);
  } catch (error) {
    files.close();
    throw error;
  }
}

/** What a worker reads of a model: its directory, or its files and what may lie beside them. */
export function workerFiles(model: string): readonly string[] {
  return isGguf(model) ? [...ggufPaths(model), besideModel(model, CALIBRATION_FILE)] : [model];
}

/** A file of that name in a model's directory, or beside a GGUF file: `NAME.json` beside `M.gguf` is `M.NAME.json`. */
export function besideModel(model: string, name: string): string {
  return isGguf(model) ? `${model.slice(0, -".gguf".length)}.${name}` : `${model}/${name}`;
}
