/**
 * The families of models that are computed, and what distinguishes them; of families that are not, what they would need.
 * Knows names and switches; `model_config.ts` reads the numbers.
 */

import type { Activation } from "../../kernels/swiglu.ts";

/** The supported families. */
export const ARCHITECTURES = [
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "phi3",
  "olmo2",
  "olmo3",
  "gemma3_text",
] as const;

/** One of {@link ARCHITECTURES}. */
export type Architecture = (typeof ARCHITECTURES)[number];

/** What a family computes whatever its `config.json` says. */
export interface FamilyTraits {
  /** Whether q, k and v have biases. */
  readonly attentionBias: boolean;
  /** The RMS norm that queries and keys go through before the rotary embedding: of each head, or of all heads together. */
  readonly qkNorm: "head" | "row" | undefined;
  /** Where a block's RMS norms stand: before attention and MLP, after them and before the sum, or both. */
  readonly blockNorms: "before" | "after" | "both";
  /** What the gate of the MLP goes through. */
  readonly activation: Activation;
  /** Whether q, k and v, and gate and up, are one tensor each in the files. */
  readonly fusedProjections: boolean;
}

/** A family, as its files present it. */
export interface Family extends FamilyTraits {
  /** The entry of `architectures`. */
  readonly className: string;
  /** Defaults of the library that wrote these files, for fields that they leave out. */
  readonly headDim: number | undefined;
  readonly tiedEmbeddings: boolean;
}

const LLAMA = {
  className: "LlamaForCausalLM",
  attentionBias: false,
  qkNorm: undefined,
  blockNorms: "before",
  activation: "silu",
  fusedProjections: false,
  headDim: undefined,
  tiedEmbeddings: false,
} as const;

const OLMO2 = { ...LLAMA, className: "Olmo2ForCausalLM", qkNorm: "row", blockNorms: "after" } as const;

/** The families by name. */
export const FAMILIES: Readonly<Record<Architecture, Family>> = {
  llama: LLAMA,
  mistral: { ...LLAMA, className: "MistralForCausalLM" },
  qwen2: { ...LLAMA, className: "Qwen2ForCausalLM", attentionBias: true },
  qwen3: { ...LLAMA, className: "Qwen3ForCausalLM", qkNorm: "head", headDim: 128 },
  phi3: { ...LLAMA, className: "Phi3ForCausalLM", fusedProjections: true },
  olmo2: OLMO2,
  olmo3: { ...OLMO2, className: "Olmo3ForCausalLM" },
  "gemma3_text": {
    ...LLAMA,
    className: "Gemma3ForCausalLM",
    qkNorm: "head",
    blockNorms: "both",
    activation: "gelu_tanh",
    headDim: 256,
    tiedEmbeddings: true,
  },
};

const EXPERTS = "layers of experts are not computed";
const LAYER_NORMS = "layer norms that subtract the mean are not computed";
const IMAGES = "checkpoints with an image encoder are not read";

/** By `model_type` or `general.architecture`. */
const LACKING: Readonly<Record<string, string>> = {
  gemma: "Gemma 1 is not computed; Gemma 3 is",
  gemma2: "soft-capped scores and logits are not computed; Gemma 3, which has none, is",
  gemma3: `${IMAGES}; text-only ones (gemma3_text) and GGUF files of the same model are`,
  gemma3n: "per-layer embeddings and sparse MLPs are not computed",
  llama4: EXPERTS,
  mixtral: EXPERTS,
  mistral3: IMAGES,
  "qwen2_moe": EXPERTS,
  "qwen3_moe": EXPERTS,
  "qwen3_next": EXPERTS,
  "gpt_oss": EXPERTS,
  "deepseek_v3": EXPERTS,
  olmo: LAYER_NORMS,
  olmoe: EXPERTS,
  phi: LAYER_NORMS,
  phi2: LAYER_NORMS,
  phimoe: EXPERTS,
  "phi4mm": IMAGES,
  falcon: LAYER_NORMS,
  "gpt2": LAYER_NORMS,
  "gpt_neox": LAYER_NORMS,
  smollm3: "layers without a rotary embedding are not computed",
  stablelm: LAYER_NORMS,
  starcoder2: LAYER_NORMS,
};

/** The end of a message about a family that is known but not computed: what it would need. */
export function lackingOf(name: string | undefined): string {
  return Object.hasOwn(LACKING, name ?? "") ? `: ${LACKING[name ?? ""]}` : "";
}
