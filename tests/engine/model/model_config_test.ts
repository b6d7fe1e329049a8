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
    qkNorm: false,
    slidingWindow: undefined,
    eosTokens: [1],
    bosToken: 0,
  });
});

Deno.test("readModelConfig() tells the families apart", async () => {
  const mistral = await read("mistral");
  assert.deepEqual([mistral.architecture, mistral.headDim, mistral.slidingWindow], ["mistral", 32, undefined]);
  assert.equal((await read("mistral-sliding")).slidingWindow, 48);
  const qwen2 = await read("qwen2");
  assert.deepEqual([qwen2.attentionBias, qwen2.qkNorm, qwen2.slidingWindow], [true, false, undefined]);
  const qwen3 = await read("qwen3");
  assert.deepEqual([qwen3.attentionBias, qwen3.qkNorm, qwen3.ropeTheta], [false, true, 1_000_000]);
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

Deno.test("readModelConfig() slides all layers or none", async () => {
  const sliding = { "use_sliding_window": true, "sliding_window": 32 };
  assert.equal((await readChanged("qwen2", { ...sliding, "max_window_layers": 0 })).slidingWindow, 32);
  assert.equal((await readChanged("qwen2", { ...sliding, "max_window_layers": 3 })).slidingWindow, undefined);
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
];

const UNSUPPORTED: typeof INVALID = [
  ["llama", { "model_type": "gpt2" }, /model_type must be one of llama, mistral, qwen2, qwen3, given "gpt2"$/],
  ["llama", { "model_type": undefined }, /model_type must be one of/],
  ["llama", { architectures: ["LlamaForSequenceClassification"] }, /architectures must name a …ForCausalLM/],
  ["llama", { "hidden_act": "gelu" }, /hidden_act must be "silu", given "gelu"$/],
  ["llama", { "quantization_config": { "quant_method": "awq" } }, /quantization_config must be absent/],
  ["llama", { "attention_bias": true }, /attention_bias must be false/],
  ["llama", { "mlp_bias": true }, /mlp_bias must be false/],
  ["llama", { "rope_scaling": { "rope_type": "longrope", factor: 4 } }, /rope_type must be default, linear/],
  ["qwen2-yarn", { "rope_scaling": { type: "yarn", factor: 4, mscale: 1 } }, /mscale must be absent/],
  ["llama", { "partial_rotary_factor": 0.5 }, /partial_rotary_factor must be 1, given 0\.5$/],
  ["qwen2", { "use_sliding_window": true, "max_window_layers": 1 }, /max_window_layers must be 0 or at least 3/],
  ["qwen3", { "layer_types": ["full_attention", "sliding_attention"] }, /layer_types must be alike/],
  ["llama", { "head_dim": 100 }, /4\/2 heads of 100 must be up to 32 query heads .* multiple of 8$/],
  ["llama", { "head_dim": 256 }, /4\/2 heads of 256 must be/],
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
