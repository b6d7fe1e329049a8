/** GGUF files of families with tensors of their own: the same configuration and weights as their Hugging Face form. */

import assert from "node:assert/strict";

import { openTensors } from "../../../engine/model/checkpoint.ts";
import type { TensorFiles } from "../../../engine/model/tensor_files.ts";
import { type ModelConfig, readModelConfig } from "../../../engine/model/model_config.ts";
import { encodeGguf, type GgufValue } from "../../support/gguf_file.ts";
import { FIXTURES, withFiles } from "../../support/model_directory.ts";

const ALIGNMENT = 32;
const F16 = 1;
const text = (value: string): GgufValue => ({ type: 8, value });
const integer = (value: number): GgufValue => ({ type: 4, value });
const real = (value: number): GgufValue => ({ type: 6, value });

/** By the names in the files of llama.cpp. */
const OUTSIDE: Readonly<Record<string, string>> = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
};
const COMMON: Readonly<Record<string, string>> = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};
const OUTPUT_NORMS = {
  "post_attention_layernorm": "post_attention_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
};

interface Case {
  readonly fixture: string;
  readonly architecture: string;
  readonly names: Readonly<Record<string, string>>;
  readonly metadata: Readonly<Record<string, GgufValue>>;
  /** What the file cannot say, or says in another way. */
  readonly differs: Partial<ModelConfig>;
}

const CASES: readonly Case[] = [
  {
    fixture: "phi3",
    architecture: "phi3",
    names: {
      ...COMMON,
      "post_attention_layernorm": "ffn_norm",
      "self_attn.qkv_proj": "attn_qkv",
      "mlp.gate_up_proj": "ffn_up",
    },
    metadata: { "attention.sliding_window": integer(0), "rope.dimension_count": integer(16) },
    differs: {},
  },
  {
    fixture: "olmo3",
    architecture: "olmo2",
    names: { ...COMMON, ...OUTPUT_NORMS },
    metadata: {
      "attention.sliding_window": integer(48),
      "rope.scaling.type": text("yarn"),
      "rope.scaling.factor": real(4),
      "rope.scaling.original_context_length": integer(64),
    },
    differs: {},
  },
  {
    fixture: "gemma3",
    architecture: "gemma3",
    names: { ...COMMON, ...OUTPUT_NORMS, "pre_feedforward_layernorm": "ffn_norm" },
    metadata: {
      "attention.sliding_window": integer(40),
      "attention.key_length": integer(32),
      "attention.value_length": integer(32),
      "rope.scaling.type": text("linear"),
      "rope.scaling.factor": real(8),
    },
    // The writer has added one to the norms; the scale follows from the heads.
    differs: { normOffset: 0, attentionScale: 1 / Math.sqrt(32) },
  },
];

function nameOf(name: string, names: Case["names"]): string {
  const [, layer, part = ""] = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const known = layer === undefined ? OUTSIDE[name.slice(0, -".weight".length)] : names[part];
  assert.ok(known !== undefined, `there is no name for ${name}`);
  return layer === undefined ? `${known}.weight` : `blk.${layer}.${known}.weight`;
}

/** Numbers that every family has. */
function shapeOf(config: ModelConfig): Record<string, GgufValue> {
  return {
    "block_count": integer(config.layers),
    "context_length": integer(config.maxPositions),
    "embedding_length": integer(config.hidden),
    "feed_forward_length": integer(config.ffn),
    "attention.head_count": integer(config.heads),
    "attention.head_count_kv": integer(config.kvHeads),
    "attention.layer_norm_rms_epsilon": real(config.rmsNormEps),
    "rope.freq_base": real(config.ropeTheta),
  };
}

async function ggufOf({ architecture, names, metadata }: Case, config: ModelConfig, files: TensorFiles) {
  const tensors = [];
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { shape, bytes }] of files.tensors) {
    tensors.push({ name: nameOf(name, names), shape, type: F16, offset });
    const size = Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    const part = new Uint8Array(size);
    part.set(await files.read(name));
    parts.push(part);
    offset += size;
  }
  const data = new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
  const keys = Object.entries({ ...shapeOf(config), ...metadata })
    .map(([key, value]) => [`${architecture}.${key}`, value] as const);
  return encodeGguf({
    metadata: [
      ["general.architecture", text(architecture)],
      ["general.alignment", integer(ALIGNMENT)],
      ["tokenizer.ggml.eos_token_id", integer(1)],
      ["tokenizer.ggml.bos_token_id", integer(0)],
      ...keys,
    ],
    tensors,
    dataBytes: data.length,
    data,
  });
}

for (const given of CASES) {
  const { fixture, architecture, differs } = given;
  Deno.test(`A GGUF file of ${architecture} has the configuration and weights of ${fixture}`, async () => {
    const config = await readModelConfig(`${FIXTURES}${fixture}`);
    using expected = await openTensors(`${FIXTURES}${fixture}`);
    await withFiles({ "m.gguf": await ggufOf(given, config, expected) }, async (directory) => {
      const found = await readModelConfig(`${directory}/m.gguf`);
      const rounded = (value: ModelConfig) => ({ ...value, rmsNormEps: Math.fround(value.rmsNormEps) });
      const { ropeScaling, ...rest } = rounded({ ...config, ...differs });
      assert.deepEqual({ ...found, ropeScaling: undefined }, { ...rest, ropeScaling: undefined });
      // The file gives factors, not results.
      assert.equal(found.ropeScaling.kind, ropeScaling.kind);
      using files = await openTensors(`${directory}/m.gguf`);
      assert.deepEqual([...files.tensors.keys()], [...expected.tensors.keys()]);
      for (const name of files.tensors.keys()) assert.deepEqual(await files.read(name), await expected.read(name));
    });
  });
}
