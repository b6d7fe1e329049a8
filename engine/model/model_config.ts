/**
 * The shape of a model, read from the `config.json` and `generation_config.json` of a checkpoint. Parses
 * once: inside the engine there are only valid configurations. Knows names and numbers; knows nothing of tensors.
 */

import { fitsAttention, HEAD_BOUNDS } from "../../kernels/attention/kv_pages.ts";
import { EngineError } from "../errors.ts";
import { readConfigFiles } from "./checkpoint.ts";
import { type Architecture, ARCHITECTURES, FAMILIES, type FamilyTraits, lackingOf } from "./families.ts";
import { isGguf } from "./gguf/gguf_files.ts";
import { type JsonObject, shown } from "./json_file.ts";
import { readRope, type RopeScaling } from "./rope_config.ts";
import { readWindows, type Windows } from "./window_config.ts";

/** Everything about a model but its weights and its text. */
export interface ModelConfig extends FamilyTraits, Windows {
  /** The family, which decides over what {@link FamilyTraits} say. */
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
  /** Of scores: query times key is multiplied by it. */
  readonly attentionScale: number;
  /** Of embedded tokens. */
  readonly embeddingScale: number;
  /** Added to the weights of norms as the files have them. */
  readonly normOffset: number;
  /** Tokens that end an answer, ascending; may be empty. */
  readonly eosTokens: readonly number[];
  /** The token that begins a text, if the model has one. */
  readonly bosToken: number | undefined;
}

/** Far above any model that exists, low enough that products of two sizes stay exact. */
const SIZE = { min: 1, max: 1 << 24 } as const;

/** The longest context that a u32 position times a head still describes comfortably. */
const POSITIONS = { min: 1, max: 1 << 28 } as const;

/** The only activation of Gemma 3. */
const GELU = "gelu_pytorch_tanh";

function readArchitecture(config: JsonObject): Architecture {
  const type = config.string("model_type");
  const architecture = ARCHITECTURES.find((name) => name === type);
  if (architecture === undefined) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: model_type must be one of ${ARCHITECTURES.join(", ")}, given ${shown(type)}` +
        lackingOf(type),
    );
  }
  const classes = config.array("architectures");
  if (classes !== undefined && !classes.some((name) => typeof name === "string" && name.endsWith("ForCausalLM"))) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${config.source}: architectures must name a …ForCausalLM, given ${shown(classes)}`,
    );
  }
  if (classes !== undefined && !classes.includes(FAMILIES[architecture].className)) {
    throw new EngineError(
      "invalid_model",
      `Cannot load ${config.source}: architectures must name ${FAMILIES[architecture].className}, as model_type is ` +
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
  if (architecture === "gemma3_text") {
    if ((config.string("hidden_activation") ?? GELU) !== GELU) refuse("hidden_activation", `"${GELU}"`);
    for (const field of ["attn_logit_softcapping", "final_logit_softcapping"]) {
      if (config.value(field) !== undefined) refuse(field, "absent");
    }
    if (config.flag("use_bidirectional_attention")) refuse("use_bidirectional_attention", "false");
  } else if ((config.string("hidden_act") ?? "silu") !== "silu") refuse("hidden_act", `"silu"`);
  if (config.value("quantization_config") !== undefined) refuse("quantization_config", "absent");
  // Qwen2 has its three biases whatever the file says; in the other families this switch adds a fourth, on the output.
  if (architecture !== "qwen2" && config.flag("attention_bias")) refuse("attention_bias", "false");
  if (config.flag("mlp_bias")) refuse("mlp_bias", "false");
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
  const fallback = FAMILIES[architecture].headDim ?? config.integer("hidden_size", SIZE) / heads;
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
  const rope = readRope(config, positions, ropeDivisors);
  const { className: _, headDim: _headDim, tiedEmbeddings, ...traits } = FAMILIES[architecture];
  return {
    architecture,
    ...traits,
    layers,
    hidden: config.integer("hidden_size", SIZE),
    ffn: config.integer("intermediate_size", SIZE),
    ...readHeads(config, architecture),
    vocabSize,
    ...rope,
    ...readWindows(config, { architecture, layers, rope }),
    rmsNormEps: config.number("rms_norm_eps", { above: 0, max: 1 }, 1e-6),
    tiedEmbeddings: config.flag("tie_word_embeddings", tiedEmbeddings),
    ...readScales(config, { architecture, model }),
    eosTokens: [...new Set(eos)].sort((a, b) => a - b),
    bosToken: readTokens(config, "bos_token_id", vocabSize)[0],
  };
}

/** Gemma scales what others do not, and its norms multiply by one more than their files say; GGUF files have it added. */
function readScales(
  config: JsonObject,
  { architecture, model }: { readonly architecture: Architecture; readonly model: string },
): Pick<ModelConfig, "attentionScale" | "embeddingScale" | "normOffset"> {
  if (architecture !== "gemma3_text") {
    return { attentionScale: 1 / Math.sqrt(readHeads(config, architecture).headDim), embeddingScale: 1, normOffset: 0 };
  }
  const scalar = config.number("query_pre_attn_scalar", { above: 0, max: SIZE.max }, 256);
  return {
    attentionScale: 1 / Math.sqrt(scalar),
    embeddingScale: Math.sqrt(config.integer("hidden_size", SIZE)),
    normOffset: isGguf(model) ? 0 : 1,
  };
}
