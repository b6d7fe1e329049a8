/**
 * The metadata of a GGUF file as the `config.json` of a Hugging Face directory, so that both are judged by the same rules.
 * Knows the keys of both; what is out of bounds is named by the key of the file.
 */

import { at } from "../../../kernels/at.ts";
import { toFloats } from "../../../kernels/weights/write_rows.ts";
import { EngineError } from "../../errors.ts";
import { type Architecture, FAMILIES, lackingOf } from "../families.ts";
import { type IntegerBounds, JsonObject, shown } from "../json_file.ts";
import type { GgufFiles } from "./gguf_files.ts";

/** `general.architecture` → the family. Mistral's files call themselves llama, as they compute the same. */
const GGUF_FAMILIES = ["llama", "qwen2", "qwen3", "phi3", "olmo2", "gemma3"] as const;

/** One of the families that such files name. */
export type GgufFamily = (typeof GGUF_FAMILIES)[number];

const SIZE = { min: 1, max: 1 << 24 } as const;
const POSITIONS = { min: 1, max: 1 << 28 } as const;
const FACTOR = { above: 0, max: 1e6 } as const;

const LAYERS_OF_GEMMA3_27B = 62;

/** Tokens that end an answer, whether or not a file says so. */
const END_MARKERS = [
  "<|eot_id|>",
  "<|eom_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<end_of_turn>",
];
const CONTROL = 3;

/** The family of a file. @throws {EngineError} `unsupported_model` for one that is not computed */
export function familyOf({ metadata }: GgufFiles): GgufFamily {
  const name = metadata.string("general.architecture");
  const family = GGUF_FAMILIES.find((family) => family === name);
  if (family !== undefined) return family;
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${metadata.source}: general.architecture must be one of ${GGUF_FAMILIES.join(", ")}, given ` +
      `${shown(name)}${lackingOf(name)}`,
  );
}

/**
 * The configuration of a file.
 * @throws {EngineError} `invalid_model` naming the key, the bound and what was given; `unsupported_model`
 */
export function configOf(files: GgufFiles): JsonObject {
  const { metadata, tensors } = files;
  const family = familyOf(files);
  const key = (name: string) => `${family}.${name}`;
  const integer = (name: string, bounds: IntegerBounds, fallback?: number) =>
    metadata.integer(key(name), bounds, fallback);
  refuseExperts(metadata, key("expert_count"));
  const heads = integer("attention.head_count", { min: 1, max: 4096 });
  const hidden = integer("embedding_length", SIZE);
  const headDim = integer("attention.key_length", { min: 2, max: 1024 }, hidden / heads);
  for (const name of ["attention.value_length", "rope.dimension_count"]) {
    if (integer(name, SIZE, headDim) !== headDim) throw unsupported(metadata, key(name), `${headDim}, as for keys`);
  }
  const layers = integer("block_count", { min: 1, max: 1024 });
  const own = fieldsOf(family, { metadata, key, layers, headDim, scale: hidden / heads });
  const config = {
    ...own,
    architectures: [FAMILIES[own["model_type"]].className],
    "num_hidden_layers": layers,
    "hidden_size": hidden,
    "intermediate_size": integer("feed_forward_length", SIZE),
    "num_attention_heads": heads,
    "num_key_value_heads": integer("attention.head_count_kv", { min: 1, max: heads }, heads),
    "head_dim": headDim,
    "vocab_size": vocabularyOf(files),
    "max_position_embeddings": integer("context_length", POSITIONS),
    "rms_norm_eps": metadata.number(key("attention.layer_norm_rms_epsilon"), { above: 0, max: 1 }),
    "rope_theta": metadata.number(key("rope.freq_base"), { above: 1, max: 1e12 }, 10000),
    "rope_scaling": scalingOf(metadata, key),
    "tie_word_embeddings": !tensors.has("output.weight"),
    "eos_token_id": endTokens(metadata),
    "bos_token_id": metadata.value("tokenizer.ggml.bos_token_id"),
  };
  return new JsonObject(config, metadata.source);
}

/** What `fieldsOf` reads, and numbers it needs. */
interface FamilyKeys {
  readonly metadata: JsonObject;
  readonly key: (name: string) => string;
  readonly layers: number;
  readonly headDim: number;
  /** Hidden size over heads. */
  readonly scale: number;
}

/** Fields that only some families have. Constants are those of llama.cpp, where the files leave them out. */
function fieldsOf(
  family: GgufFamily,
  { metadata, key, layers, headDim, scale }: FamilyKeys,
): { readonly "model_type": Architecture } & Readonly<Record<string, unknown>> {
  // Some writers have 0 for none.
  const window = metadata.integer(key("attention.sliding_window"), { min: 0, max: POSITIONS.max }, 0) || undefined;
  const period = metadata.value(key("attention.sliding_window_pattern"));
  switch (family) {
    case "phi3":
      return { "model_type": "phi3", "sliding_window": window };
    case "olmo2":
      if (window === undefined) return { "model_type": "olmo2" };
      return { "model_type": "olmo3", "sliding_window": window, "sliding_window_pattern": period };
    case "gemma3":
      return {
        "model_type": "gemma3_text",
        "sliding_window": window,
        "sliding_window_pattern": period,
        "rope_local_base_freq": metadata.value(key("rope.freq_base_swa")),
        // The largest of them scales by hidden size and heads, the others by the head.
        "query_pre_attn_scalar": layers === LAYERS_OF_GEMMA3_27B ? scale : headDim,
      };
    default:
      return { "model_type": family };
  }
}

/**
 * Divisors of the rotary frequencies, one for each, which some files have in place of a formula.
 * @throws {EngineError} `invalid_model` when they are not positive numbers, one for each pair of a head
 */
export async function ropeDivisorsOf(files: GgufFiles, headDim: number): Promise<readonly number[] | undefined> {
  const found = files.tensors.get("rope_freqs.weight");
  if (found === undefined) return undefined;
  const { tensor: { dtype, shape, bytes, position }, shard } = found;
  const expected = `F32 [${headDim / 2}]`;
  if (dtype !== "F32" || shape.join() !== String(headDim / 2)) {
    throw new EngineError(
      "invalid_model",
      `Cannot load ${shard.path}: tensor rope_freqs.weight must be ${expected}, found ${dtype} [${shape.join(", ")}]`,
    );
  }
  const data = new Uint8Array(bytes);
  await shard.read(position, data);
  const divisors = [...toFloats(dtype, data)];
  const wrong = divisors.find((divisor) => !(divisor > 0 && Number.isFinite(divisor)));
  if (wrong === undefined) return divisors;
  throw new EngineError(
    "invalid_model",
    `Cannot load ${shard.path}: tensor rope_freqs.weight must have positive numbers, found ${wrong}`,
  );
}

function refuseExperts(metadata: JsonObject, key: string): void {
  if (metadata.integer(key, { min: 0, max: SIZE.max }, 0) > 0) throw unsupported(metadata, key, "0 or absent");
}

/** Rows of the embedding, which the tokenizer need not fill. */
function vocabularyOf({ metadata, tensors }: GgufFiles): number {
  const embedding = tensors.get("token_embd.weight");
  if (embedding === undefined) {
    throw new EngineError(
      "invalid_model",
      `Cannot load ${metadata.source}: expected a tensor token_embd.weight, found none`,
    );
  }
  return at(embedding.tensor.shape, 0);
}

function scalingOf(metadata: JsonObject, key: (name: string) => string): Readonly<Record<string, unknown>> | undefined {
  const type = metadata.string(key("rope.scaling.type")) ?? "none";
  const oldFactor = metadata.number(key("rope.scale_linear"), FACTOR, 1);
  const given = metadata.number(key("rope.scaling.factor"), FACTOR, oldFactor);
  // Some writers have 0 or 1 for none.
  if (type === "none" || type === "linear") return given === 1 ? undefined : { "rope_type": "linear", factor: given };
  if (type !== "yarn") throw unsupported(metadata, key("rope.scaling.type"), "none, linear or yarn");
  const attention = metadata.number(key("rope.scaling.attn_factor"), FACTOR, 1);
  const beta = (name: string) => metadata.value(key(`rope.scaling.yarn_beta_${name}`));
  return {
    "rope_type": type,
    factor: given,
    "original_max_position_embeddings": metadata.value(key("rope.scaling.original_context_length")),
    "attention_factor": attention * (given > 1 ? 0.1 * Math.log(given) + 1 : 1),
    "beta_fast": beta("fast"),
    "beta_slow": beta("slow"),
  };
}

function endTokens(metadata: JsonObject): readonly unknown[] {
  const named = ["eos", "eot", "eom"].map((name) => metadata.value(`tokenizer.ggml.${name}_token_id`));
  const types = metadata.array("tokenizer.ggml.token_type") ?? [];
  const marked = (metadata.array("tokenizer.ggml.tokens") ?? []).flatMap((token, id) =>
    types[id] === CONTROL && END_MARKERS.some((marker) => marker === token) ? [id] : []
  );
  return [...named.filter((id) => id !== undefined), ...marked];
}

function unsupported(metadata: JsonObject, key: string, expected: string): EngineError {
  return new EngineError(
    "unsupported_model",
    `Cannot load ${metadata.source}: ${key} must be ${expected}, given ${shown(metadata.value(key))}`,
  );
}
