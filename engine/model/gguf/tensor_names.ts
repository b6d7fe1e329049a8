/** What the tensors of GGUF files are called in a Hugging Face checkpoint, family by family. Knows names only. */

import { EngineError } from "../../errors.ts";
import { shown } from "../json_file.ts";
import type { GgufFamily } from "./gguf_config.ts";

/** Outside the layers. */
const NAMES: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Of a layer; `weight` or `bias` follows. */
const LLAMA: Readonly<Record<string, string>> = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
};

const HEAD_NORMS = { "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm" };
const OUTPUT_NORMS = {
  "post_attention_norm": "post_attention_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
};

const PARTS: Readonly<Record<GgufFamily, Readonly<Record<string, string>>>> = {
  llama: LLAMA,
  qwen2: LLAMA,
  qwen3: { ...LLAMA, ...HEAD_NORMS },
  // Gate and up lie in one tensor, which is called up.
  phi3: { ...LLAMA, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj" },
  olmo2: { ...LLAMA, ...HEAD_NORMS, ...OUTPUT_NORMS },
  gemma3: { ...LLAMA, ...HEAD_NORMS, ...OUTPUT_NORMS, "ffn_norm": "pre_feedforward_layernorm" },
};

/** Families have biases on these only. */
const BIASED = ["attn_q", "attn_k", "attn_v"];

/**
 * The name of a tensor in a Hugging Face checkpoint of the family.
 * @throws {EngineError} `unsupported_model` for a tensor that belongs to nothing that is computed
 */
export function checkpointName(
  name: string,
  { family, path }: { readonly family: GgufFamily; readonly path: string },
): string {
  const plain = NAMES[name];
  if (plain !== undefined) return plain;
  const [, layer, part = "", kind] = /^blk\.(\d{1,4})\.([a-z_]+)\.(weight|bias)$/.exec(name) ?? [];
  const known = PARTS[family][part];
  if (layer !== undefined && known !== undefined && (kind === "weight" || BIASED.includes(part))) {
    return `model.layers.${Number(layer)}.${known}.${kind}`;
  }
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${path}: tensor ${shown(name)} belongs to nothing that ${family} models compute here`,
  );
}
