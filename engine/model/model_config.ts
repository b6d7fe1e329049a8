/**
 * The shape of a model, read from the `config.json` and `generation_config.json` of a checkpoint. Parses
 * once: inside the engine there are only valid configurations. Knows names and numbers; knows nothing of tensors.
 */

import { fitsAttention, HEAD_BOUNDS } from "../../kernels/attention/kv_pages.ts";
import { EngineError } from "../errors.ts";
import { readConfigFiles } from "./checkpoint.ts";
import { type JsonObject, shown } from "./json_file.ts";
import { readRope, type RopeScaling } from "./rope_config.ts";

/** The families we compute; they differ in biases, head norms and windows only. */
export const ARCHITECTURES = ["llama", "mistral", "qwen2", "qwen3"] as const;

/** One of {@link ARCHITECTURES}. */
export type Architecture = (typeof ARCHITECTURES)[number];

/** What the files of each family call their class. */
const CLASSES: Readonly<Record<Architecture, string>> = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
};

/** Everything about a model but its weights and its text. */
export interface ModelConfig {
  /** The family, which decides over biases, head norms and windows. */
  readonly architecture: Architecture;
  /** Transformer layers. */
  readonly layers: number;
  /** Width of a residual row. */
  readonly hidden: number;
  /** Width inside the MLP. */
  readonly ffn: number;
  /** Query heads; a multiple of `kvHeads`. */
  readonly heads: number;
  /** Heads of keys and values. */
  readonly kvHeads: number;
  /** Even; `heads × headDim` need not be `hidden`. */
  readonly headDim: number;
  /** Rows of the embedding; the tokenizer may know fewer. */
  readonly vocabSize: number;
  /** The longest context the model was made for, in tokens. */
  readonly maxPositions: number;
  /** Added to the mean square of a row before the root. */
  readonly rmsNormEps: number;
  /** Base of the rotary frequencies. */
  readonly ropeTheta: number;
  /** How those frequencies are stretched. */
  readonly ropeScaling: RopeScaling;
  /** Whether the head is the embedding; there is no `lm_head.weight` then. */
  readonly tiedEmbeddings: boolean;
  /** Whether q, k and v have biases. */
  readonly attentionBias: boolean;
  /** Whether each q and k head goes through an RMS norm before the rotary embedding. */
  readonly qkNorm: boolean;
  /** A row sees itself and this many rows less one before it; undefined: everything before it. */
  readonly slidingWindow: number | undefined;
  /** Tokens that end an answer, ascending; may be empty. */
  readonly eosTokens: readonly number[];
  /** The token that begins a text, if the model has one. */
  readonly bosToken: number | undefined;
}

/** Far above any model that exists, low enough that products of two sizes stay exact. */
const SIZE = { min: 1, max: 1 << 24 } as const;

/** The longest context that a u32 position times a head still describes comfortably. */
const POSITIONS = { min: 1, max: 1 << 28 } as const;

function readArchitecture(config: JsonObject): Architecture {
  const type = config.string("model_type");
  const architecture = ARCHITECTURES.find((name) => name === type);
  if (architecture === undefined) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: model_type must be one of ${ARCHITECTURES.join(", ")}, given ${shown(type)}`,
    );
  }
  const classes = config.array("architectures");
  if (classes !== undefined && !classes.some((name) => typeof name === "string" && name.endsWith("ForCausalLM"))) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: architectures must name a …ForCausalLM, given ${shown(classes)}`,
    );
  }
  if (classes !== undefined && !classes.includes(CLASSES[architecture])) {
    throw new EngineError(
      "invalid_model",
      `Cannot load ${config.source}: architectures must name ${CLASSES[architecture]}, as model_type is ` +
        `${shown(type)}, given ${shown(classes)}`,
    );
  }
  return architecture;
}

/** Refuses what would change the numbers and is not computed here. */
function refuseUnsupported(config: JsonObject, architecture: Architecture): void {
  const refuse = (field: string, expected: string) => {
    const given = shown(config.value(field));
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: ${field} must be ${expected}, given ${given}`,
    );
  };
  if ((config.string("hidden_act") ?? "silu") !== "silu") refuse("hidden_act", `"silu"`);
  if (config.value("quantization_config") !== undefined) refuse("quantization_config", "absent");
  // Qwen2 has its three biases whatever the file says; in the other families this switch adds a fourth, on the output.
  if (architecture !== "qwen2" && config.flag("attention_bias")) refuse("attention_bias", "false");
  if (config.flag("mlp_bias")) refuse("mlp_bias", "false");
}

/** A window for all layers or for none: the families we know can also alternate, which we do not compute. */
function readWindow(config: JsonObject, architecture: Architecture, layers: number): number | undefined {
  if (architecture === "llama") return undefined;
  const given = config.value("sliding_window");
  const window = given === undefined ? undefined : config.integer("sliding_window", POSITIONS);
  const types = config.array("layer_types");
  if (types !== undefined) {
    const sliding = types.filter((type) => type === "sliding_attention").length;
    if (sliding === 0) return undefined;
    if (sliding === layers && window !== undefined) return window;
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: layer_types must be alike, given ${sliding} sliding layers of ${layers}`,
    );
  }
  if (architecture === "mistral") return window;
  if (!config.flag("use_sliding_window")) return undefined;
  const fullLayers = config.integer("max_window_layers", { min: 0, max: SIZE.max }, layers);
  if (fullLayers >= layers) return undefined;
  if (fullLayers === 0) return window;
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${config.source}: max_window_layers must be 0 or at least ${layers}, given ${fullLayers}`,
  );
}

function readTokens(source: JsonObject, field: string, vocabSize: number): number[] {
  const value = source.value(field);
  const tokens: unknown[] = value === undefined ? [] : Array.isArray(value) ? value : [value];
  return tokens.map((token) => {
    if (typeof token === "number" && Number.isInteger(token) && token >= 0 && token < vocabSize) return token;
    throw source.invalid(field, `a token id below ${vocabSize}, or a list of them`);
  });
}

function readHeads(config: JsonObject, architecture: Architecture): Pick<ModelConfig, "heads" | "kvHeads" | "headDim"> {
  const heads = config.integer("num_attention_heads", { min: 1, max: 4096 });
  const kvHeads = config.integer("num_key_value_heads", { min: 1, max: heads }, heads);
  if (heads % kvHeads !== 0) {
    throw config.invalid("num_key_value_heads", `a divisor of num_attention_heads, ${heads}`);
  }
  // The defaults are those of the library that wrote these files.
  const fallback = architecture === "qwen3" ? 128 : config.integer("hidden_size", SIZE) / heads;
  const headDim = config.integer("head_dim", { min: 2, max: 1024 }, fallback);
  if (headDim % 2 !== 0) throw config.invalid("head_dim", "even");
  if (!fitsAttention({ heads, kvHeads, headDim })) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: ${heads}/${kvHeads} heads of ${headDim} must be ${HEAD_BOUNDS}`,
    );
  }
  return { heads, kvHeads, headDim };
}

/**
 * Reads the configuration of a model: of a Hugging Face directory, or of a GGUF file.
 *
 * @throws {EngineError} `invalid_model` when a file is missing or a field is not what it must be,
 * `unsupported_model` when the model is sound but needs something we do not compute
 */
export async function readModelConfig(model: string): Promise<ModelConfig> {
  const { config, generation, ropeDivisors } = await readConfigFiles(model);
  const architecture = readArchitecture(config);
  refuseUnsupported(config, architecture);
  const layers = config.integer("num_hidden_layers", { min: 1, max: 1024 });
  const vocabSize = config.integer("vocab_size", SIZE);
  const positions = config.integer("max_position_embeddings", POSITIONS);
  const eos = [config, generation].flatMap((file) => file ? readTokens(file, "eos_token_id", vocabSize) : []);
  return {
    architecture,
    layers,
    hidden: config.integer("hidden_size", SIZE),
    ffn: config.integer("intermediate_size", SIZE),
    ...readHeads(config, architecture),
    vocabSize,
    ...readRope(config, positions, ropeDivisors),
    rmsNormEps: config.number("rms_norm_eps", { above: 0, max: 1 }, 1e-6),
    tiedEmbeddings: config.flag("tie_word_embeddings"),
    attentionBias: architecture === "qwen2",
    qkNorm: architecture === "qwen3",
    slidingWindow: readWindow(config, architecture, layers),
    eosTokens: [...new Set(eos)].sort((a, b) => a - b),
    bosToken: readTokens(config, "bos_token_id", vocabSize)[0],
  };
}
