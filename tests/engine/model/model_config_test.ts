/** What each fixture family's configuration means, and what is refused: invalid fields and models we do not compute. */

import assert from "node:assert/strict";

import { readModelConfig } from "../../../engine/model/model_config.ts";
import { PRESETS } from "../../../engine/model/presets.ts";
import { FIXTURES, readFixture, withFiles } from "../../support/model_directory.ts";

const read = (fixture: string) => readModelConfig(`${FIXTURES}${fixture}`);

/** Reads the configuration of a fixture with some fields changed; undefined removes one. */
async function readChanged(fixture: string, changes: Record<string, unknown>, generation?: object) {
  const config = { ...await readFixture<object>(`${fixture}/config.json`), ...changes };
  let result: Awaited<ReturnType<typeof readModelConfig>> | undefined;
  await withFiles({ "config.json": config, "generation_config.json": generation }, async (directory) => {
    result = await readModelConfig(directory);
  });
  assert.ok(result !== undefined);
  return result;
}

Deno.test("readModelConfig() reads a plain Llama and takes the head dimension from hidden / heads", async () => {
  assert.deepEqual(await read("llama"), {
    architecture: "llama",
    layers: 3,
    hidden: 64,
    ffn: 192,
    heads: 4,
    kvHeads: 2,
    headDim: 16,
    vocabSize: 512,
    maxPositions: 2048,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: { kind: "none" },
    tiedEmbeddings: true,
    attentionBias: false,
    qkNorm: undefined,
    blockNorms: "before",
    activation: "silu",
    fusedProjections: false,
    slidingWindow: undefined,
    localLayers: undefined,
    attentionScale: 0.25,
    embeddingScale: 1,
    normOffset: 0,
    eosTokens: [1],
    bosToken: 0,
  });
});

Deno.test("readModelConfig() distinguishes the families", async () => {
  const mistral = await read("mistral");
  assert.deepEqual([mistral.architecture, mistral.headDim, mistral.slidingWindow], ["mistral", 32, undefined]);
  assert.equal((await read("mistral-sliding")).slidingWindow, 48);
  const qwen2 = await read("qwen2");
  assert.deepEqual([qwen2.attentionBias, qwen2.qkNorm, qwen2.slidingWindow], [true, undefined, undefined]);
  const qwen3 = await read("qwen3");
  assert.deepEqual([qwen3.attentionBias, qwen3.qkNorm, qwen3.ropeTheta], [false, "head", 1_000_000]);
});

Deno.test("readModelConfig() reads rope scalings under the old and the new key", async () => {
  assert.deepEqual((await read("llama-linear")).ropeScaling, { kind: "linear", factor: 4 });
  assert.deepEqual((await read("llama-rope3")).ropeScaling, {
    kind: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalPositions: 64,
  });
  const yarn = {
    kind: "yarn",
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    originalPositions: 48,
    attentionFactor: 0.1 * Math.log(4) + 1,
  };
  assert.deepEqual((await read("qwen2-yarn")).ropeScaling, yarn);
  const parameters = { "rope_type": "linear", "rope_theta": 5000, factor: 2 };
  const newer = await readChanged("llama", { "rope_theta": undefined, "rope_parameters": parameters });
  assert.deepEqual([newer.ropeTheta, newer.ropeScaling], [5000, { kind: "linear", factor: 2 }]);
});

Deno.test("readModelConfig() counts the context after yarn when the file gives the one before", async () => {
  assert.equal((await read("qwen2-yarn")).maxPositions, 192);
  const before = await readChanged("qwen2", { "rope_scaling": { "rope_type": "yarn", factor: 4 } });
  assert.equal(before.maxPositions, 8192);
});

Deno.test("readModelConfig() collects the ends of an answer from both files", async () => {
  const config = await readChanged("llama", { "eos_token_id": [9, 1] }, { "eos_token_id": 7 });
  assert.deepEqual(config.eosTokens, [1, 7, 9]);
  const none = await readChanged("llama", { "eos_token_id": null, "bos_token_id": undefined });
  assert.deepEqual([none.eosTokens, none.bosToken], [[], undefined]);
});

Deno.test("readModelConfig() knows what is Phi-3's, OLMo's and Gemma 3's own", async () => {
  const phi = await read("phi3");
  assert.deepEqual([phi.fusedProjections, phi.blockNorms, phi.slidingWindow], [true, "before", undefined]);
  const windowed = await readChanged("phi3", { "sliding_window": 2047 });
  assert.deepEqual([windowed.slidingWindow, windowed.localLayers], [2047, undefined]);
  const olmo2 = await readChanged("olmo3", { "model_type": "olmo2", architectures: undefined });
  assert.deepEqual([olmo2.qkNorm, olmo2.blockNorms, olmo2.localLayers], ["row", "after", undefined]);
  const { localLayers, ropeScaling } = await read("olmo3");
  assert.deepEqual(localLayers, {
    isLocal: [true, true, true, false],
    window: 48,
    // Only the layers that see everything are stretched.
    rope: { ropeTheta: 500000, ropeScaling: { kind: "none" } },
  });
  assert.equal(ropeScaling.kind, "yarn");
  const gemma = await read("gemma3");
  assert.deepEqual([gemma.qkNorm, gemma.blockNorms, gemma.activation], ["head", "both", "gelu_tanh"]);
  assert.deepEqual([gemma.attentionScale, gemma.embeddingScale, gemma.normOffset], [1 / Math.sqrt(20), 8, 1]);
  // Neither file has the field; the libraries' defaults differ.
  const untied = await readChanged("phi3", { "tie_word_embeddings": undefined });
  assert.deepEqual([gemma.tiedEmbeddings, untied.tiedEmbeddings], [true, false]);
  assert.deepEqual([gemma.ropeTheta, gemma.ropeScaling], [1_000_000, { kind: "linear", factor: 8 }]);
  assert.deepEqual(gemma.localLayers, {
    isLocal: [true, true, true, true, true, false, true],
    window: 40,
    rope: { ropeTheta: 10000, ropeScaling: { kind: "none" } },
  });
});

Deno.test("readModelConfig() reads rotary embeddings by kind of layer", async () => {
  const parameters = {
    "full_attention": { "rope_type": "linear", factor: 4, "rope_theta": 2e6 },
    "sliding_attention": { "rope_type": "default", "rope_theta": 20000 },
  };
  const gone = { "rope_theta": undefined, "rope_scaling": undefined, "rope_local_base_freq": undefined };
  const { ropeTheta, ropeScaling, localLayers } = await readChanged("gemma3", {
    ...gone,
    "rope_parameters": parameters,
  });
  assert.deepEqual([ropeTheta, ropeScaling], [2e6, { kind: "linear", factor: 4 }]);
  assert.deepEqual(localLayers?.rope, { ropeTheta: 20000, ropeScaling: { kind: "none" } });
});

Deno.test("readModelConfig() slides all layers, none or some", async () => {
  const sliding = { "use_sliding_window": true, "sliding_window": 32 };
  assert.equal((await readChanged("qwen2", { ...sliding, "max_window_layers": 0 })).slidingWindow, 32);
  assert.equal((await readChanged("qwen2", { ...sliding, "max_window_layers": 3 })).slidingWindow, undefined);
  const some = (await readChanged("qwen2", { ...sliding, "max_window_layers": 1 })).localLayers;
  const { ropeTheta, ropeScaling } = await read("qwen2");
  assert.deepEqual(some, { isLocal: [false, true, true], window: 32, rope: { ropeTheta, ropeScaling } });
  const alike = { ...sliding, "layer_types": Array(3).fill("sliding_attention") };
  assert.equal((await readChanged("qwen3", alike)).slidingWindow, 32);
  const full = { ...sliding, "layer_types": Array(3).fill("full_attention") };
  assert.equal((await readChanged("mistral", full)).slidingWindow, undefined);
});

const INVALID: readonly (readonly [fixture: string, change: Record<string, unknown>, message: RegExp])[] = [
  ["llama", { "hidden_size": "64" }, /config\.json: hidden_size must be an integer from 1 to \d+, given "64"$/],
  ["llama", { "num_hidden_layers": undefined }, /num_hidden_layers must be .*, given nothing$/],
  ["llama", { "num_hidden_layers": 0 }, /num_hidden_layers must be an integer from 1/],
  ["llama", { "vocab_size": 1e12 }, /vocab_size must be/],
  ["llama", { "num_key_value_heads": 3 }, /num_key_value_heads must be a divisor of num_attention_heads, 4, given 3$/],
  ["llama", { "num_key_value_heads": 8 }, /num_key_value_heads must be an integer from 1 to 4/],
  ["llama", { "head_dim": 15 }, /head_dim must be even, given 15$/],
  ["llama", { "num_attention_heads": 3, "num_key_value_heads": 1 }, /head_dim must be an integer/],
  ["llama", { "rms_norm_eps": -1 }, /rms_norm_eps must be a number above 0/],
  ["llama", { "rope_theta": 1 }, /rope_theta must be a number above 1/],
  ["llama", { "tie_word_embeddings": "yes" }, /tie_word_embeddings must be true or false, given "yes"$/],
  ["llama", { "eos_token_id": 512 }, /eos_token_id must be a token id below 512/],
  ["llama", { "eos_token_id": [1, "2"] }, /eos_token_id must be a token id below 512/],
  ["llama", { "rope_scaling": [] }, /rope_scaling: expected a JSON object, given \[\]$/],
  ["llama-linear", { "rope_scaling": { type: "linear" } }, /rope_scaling: factor must be a number/],
  [
    "llama-rope3",
    { "rope_scaling": { "rope_type": "llama3", factor: 8, "low_freq_factor": 4, "high_freq_factor": 4 } },
    /high_freq_factor must be above low_freq_factor, 4, given 4$/,
  ],
  [
    "llama",
    { architectures: ["MistralForCausalLM"] },
    /must name LlamaForCausalLM, as model_type is "llama", given \["Mis/,
  ],
  ["qwen3", { architectures: ["Qwen2ForCausalLM"] }, /architectures must name Qwen3ForCausalLM/],
  ["mistral-sliding", { "sliding_window": 0 }, /sliding_window must be an integer from 1/],
  ["qwen3", { "layer_types": ["full_attention", "sliding_attention"] }, /layer_types must be a list of 3/],
  ["qwen3", { "layer_types": Array(3).fill("sliding_attention") }, /sliding_window must be an integer/],
  ["gemma3", { "sliding_window": undefined }, /sliding_window must be an integer/],
];

const UNSUPPORTED: typeof INVALID = [
  [
    "llama",
    { "model_type": "gpt2" },
    /model_type must be one of llama, .*, given "gpt2": layer norms that subtract the mean are not computed$/,
  ],
  ["llama", { "model_type": "bert" }, /model_type must be one of .*, given "bert"$/],
  ["llama", { "model_type": "gemma2" }, /given "gemma2": soft-capped scores and logits are not computed; Gemma 3/],
  ["llama", { "model_type": "gemma3" }, /given "gemma3": checkpoints with an image encoder are not read; text-only/],
  ["llama", { "model_type": "qwen3_moe" }, /given "qwen3_moe": layers of experts are not computed$/],
  ["gemma3", { "final_logit_softcapping": 30 }, /final_logit_softcapping must be absent, given 30$/],
  ["gemma3", { "hidden_activation": "gelu" }, /hidden_activation must be "gelu_pytorch_tanh", given "gelu"$/],
  ["phi3", { "partial_rotary_factor": 0.75 }, /partial_rotary_factor must be 1, given 0\.75$/],
  ["phi3", { "rope_scaling": { type: "longrope", factor: 1 } }, /type must be default, linear, llama3 or yarn/],
  ["llama", { "model_type": undefined }, /model_type must be one of/],
  ["llama", { architectures: ["LlamaForSequenceClassification"] }, /architectures must name a …ForCausalLM/],
  ["llama", { "hidden_act": "gelu" }, /hidden_act must be "silu", given "gelu"$/],
  ["llama", { "quantization_config": { "quant_method": "awq" } }, /quantization_config must be absent/],
  ["llama", { "attention_bias": true }, /attention_bias must be false/],
  ["llama", { "mlp_bias": true }, /mlp_bias must be false/],
  ["llama", { "rope_scaling": { "rope_type": "longrope", factor: 4 } }, /rope_type must be default, linear/],
  ["qwen2-yarn", { "rope_scaling": { type: "yarn", factor: 4, mscale: 1 } }, /mscale must be absent/],
  ["llama", { "partial_rotary_factor": 0.5 }, /partial_rotary_factor must be 1, given 0\.5$/],
  ["qwen3", { "layer_types": Array(3).fill("chunked_attention") }, /must be sliding_attention or full_attention/],
  ["llama", { "head_dim": 100 }, /4\/2 heads of 100 must be up to 32 query heads .* multiple of 8$/],
  ["llama", { "head_dim": 264 }, /4\/2 heads of 264 must be/],
  [
    "llama",
    { "num_attention_heads": 32, "num_key_value_heads": 1, "head_dim": 256 },
    /32\/1 heads of 256 must be .* with 4096 values/,
  ],
  ["llama", { "num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 16 }, /64\/1 heads of 16 must be/],
];

for (const [code, cases] of [["invalid_model", INVALID], ["unsupported_model", UNSUPPORTED]] as const) {
  for (const [fixture, change, message] of cases) {
    Deno.test(`readModelConfig() gives ${code} for ${fixture} with ${JSON.stringify(change)}`, async () => {
      await assert.rejects(readChanged(fixture, change), { name: "EngineError", code, message });
    });
  }
}

Deno.test("readModelConfig() names a file that is missing, cut short or no object", async () => {
  const cases = [
    [{}, /^Cannot read .*\/config\.json: no such file$/],
    [{ "config.json": `{"model_type": "lla` }, /config\.json: expected a JSON object: /],
    [{ "config.json": Uint8Array.of(0x7b, 0xff, 0x7d) }, /config\.json: expected a JSON object: /],
    [{ "config.json": "[1]" }, /config\.json: expected a JSON object, given \[1\]$/],
  ] as const;
  for (const [files, message] of cases) {
    await withFiles(files, async (directory) => {
      await assert.rejects(readModelConfig(directory), { name: "EngineError", code: "invalid_model", message });
    });
  }
});

Deno.test("PRESETS hold shapes that a file could hold", () => {
  for (const { config } of Object.values(PRESETS)) {
    assert.equal(config.heads % config.kvHeads, 0);
    assert.equal(config.heads * config.headDim, config.hidden);
  }
  assert.equal(PRESETS["llama-3-8b"]?.config.vocabSize, 128256);
});
