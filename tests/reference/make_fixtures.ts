/**
 * Makes the fixtures of families whose reference is `tests/reference/transformer.ts`: a tiny random model each, with the
 * logits and greedy tokens of a plain f64 forward pass. `deno run -A tests/reference/make_fixtures.ts` writes them again,
 * byte for byte the same. Tokenizer and prompts are those of the fixture `llama`.
 */

import { processTerminal } from "../../router/terminal.ts";
import { toHalf } from "../../kernels/half.ts";
import { ReferenceModel } from "./transformer.ts";
import { FIXTURES, readFixture } from "../support/model_directory.ts";
import { Random } from "../support/random.ts";
import { encodeSafetensors, type NewTensor } from "../support/safetensors_file.ts";

const GREEDY_TOKENS = 16;
const DECIMALS = 1e5;
/** The best and the second logit of each greedy step are farther apart: no rounding of an engine swaps them. */
const MIN_MARGIN = 0.06;
const MAX_SEEDS = 1000;

const BASE = {
  "vocab_size": 512,
  "hidden_size": 64,
  "intermediate_size": 96,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-5,
  "rope_theta": 10000,
  "bos_token_id": 0,
  "eos_token_id": 1,
  "pad_token_id": 5,
  "dtype": "float16",
} as const;

/** Configurations in the form of each family's published ones. */
const CONFIGS: Readonly<Record<string, Record<string, unknown>>> = {
  phi3: {
    ...BASE,
    architectures: ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_act": "silu",
    "attention_bias": false,
    "rope_theta": 250000,
    "rope_scaling": null,
    "partial_rotary_factor": 1,
    "sliding_window": null,
    "tie_word_embeddings": false,
  },
  olmo3: {
    ...BASE,
    architectures: ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "hidden_act": "silu",
    "attention_bias": false,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000,
    "num_hidden_layers": 4,
    "rope_scaling": {
      "rope_type": "yarn",
      factor: 4,
      "original_max_position_embeddings": 64,
      "beta_fast": 32,
      "beta_slow": 1,
      "attention_factor": 1.138629436,
    },
    "max_position_embeddings": 256,
    "sliding_window": 48,
    "layer_types": [...Array(3).fill("sliding_attention"), "full_attention"],
    "tie_word_embeddings": false,
  },
  gemma3: {
    ...BASE,
    architectures: ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": false,
    "attn_logit_softcapping": null,
    "final_logit_softcapping": null,
    "rms_norm_eps": 1e-6,
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 20,
    "rope_theta": 1000000,
    "rope_scaling": { factor: 8, "rope_type": "linear" },
    "rope_local_base_freq": 10000,
    "sliding_window": 40,
    "sliding_window_pattern": 6,
  },
};

/** Names and shapes of a family's tensors, as its checkpoints have them. */
function shapesOf(family: string, config: Record<string, unknown>): readonly (readonly [string, readonly number[]])[] {
  const number = (name: string) => Number(config[name]);
  const [hidden, ffn] = [number("hidden_size"), number("intermediate_size")];
  const headDim = config["head_dim"] === undefined ? hidden / number("num_attention_heads") : number("head_dim");
  const [q, kv] = [number("num_attention_heads") * headDim, number("num_key_value_heads") * headDim];
  const norm = (name: string, length = hidden) => [`${name}.weight`, [length]] as const;
  const matrix = (name: string, rows: number, cols: number) => [`${name}.weight`, [rows, cols]] as const;
  const layer = (at: string) => [
    ...(family.startsWith("olmo") ? [] : [norm(`${at}.input_layernorm`)]),
    norm(`${at}.post_attention_layernorm`),
    ...(family === "gemma3" ? [norm(`${at}.pre_feedforward_layernorm`)] : []),
    ...(family === "phi3" ? [] : [norm(`${at}.post_feedforward_layernorm`)]),
    ...(family === "phi3" ? [matrix(`${at}.self_attn.qkv_proj`, q + 2 * kv, hidden)] : [
      matrix(`${at}.self_attn.q_proj`, q, hidden),
      matrix(`${at}.self_attn.k_proj`, kv, hidden),
      matrix(`${at}.self_attn.v_proj`, kv, hidden),
      norm(`${at}.self_attn.q_norm`, family === "gemma3" ? headDim : q),
      norm(`${at}.self_attn.k_norm`, family === "gemma3" ? headDim : kv),
    ]),
    matrix(`${at}.self_attn.o_proj`, hidden, q),
    ...(family === "phi3"
      ? [matrix(`${at}.mlp.gate_up_proj`, 2 * ffn, hidden)]
      : ["gate_proj", "up_proj"].map((name) => matrix(`${at}.mlp.${name}`, ffn, hidden))),
    matrix(`${at}.mlp.down_proj`, hidden, ffn),
  ];
  const layers = Array.from({ length: number("num_hidden_layers") }, (_, i) => layer(`model.layers.${i}`));
  return [
    matrix("model.embed_tokens", number("vocab_size"), hidden),
    ...layers.flat(),
    norm("model.norm"),
    ...(config["tie_word_embeddings"] === false ? [matrix("lm_head", number("vocab_size"), hidden)] : []),
  ];
}

/** Norms around one, matrices that keep the size of a row, tables that spread the logits. */
function randomTensor(family: string, [name, shape]: readonly [string, readonly number[]], random: Random): NewTensor {
  const [rows = 1, cols] = shape;
  const isGemma = family === "gemma3";
  if (cols === undefined) {
    // Gemma adds one to its norms, and its head is its embedding, which must be small: the last norm makes up for it.
    const mean = !isGemma ? 1 : name === "model.norm.weight" ? 3 : 0;
    return { name, shape, dtype: "F16", data: toHalf(random.normals(rows, 0.2).map((value) => mean + value)) };
  }
  const isTable = name === "lm_head.weight" || name === "model.embed_tokens.weight";
  const deviation = (!isTable ? 1.5 : isGemma ? 1 : 4) / Math.sqrt(cols);
  return { name, shape, dtype: "F16", data: toHalf(random.normals(rows * cols, deviation)) };
}

function rounded(logits: Float64Array): number[] {
  return [...logits].map((logit) => Math.round(logit * DECIMALS) / DECIMALS);
}

/** The answers to the prompts; undefined when one of them is not clear enough. */
function answersOf(model: ReferenceModel, prompts: readonly { readonly text: string; readonly ids: number[] }[]) {
  const answers = [];
  for (const { text, ids } of prompts) {
    const cache = model.newCache();
    let logits = model.forward(ids, cache).at(-1) ?? new Float64Array();
    const first = rounded(logits);
    const greedy: number[] = [];
    let margin = Infinity;
    while (greedy.length < GREEDY_TOKENS) {
      const [best = NaN, second = NaN] = logits.toSorted((a, b) => b - a);
      margin = Math.min(margin, best - second);
      const token = logits.indexOf(best);
      // A special token would end the answer of an engine.
      if (margin < MIN_MARGIN || token < 8) return undefined;
      greedy.push(token);
      logits = model.forward([token], cache).at(-1) ?? logits;
    }
    answers.push({ text, ids, logits: first, greedy, "min_margin": Math.round(margin * DECIMALS) / DECIMALS });
  }
  return answers;
}

async function make(family: string, config: Record<string, unknown>): Promise<void> {
  const directory = `${FIXTURES}${family}`;
  await Deno.mkdir(directory, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]) {
    await Deno.copyFile(`${FIXTURES}llama/${name}`, `${directory}/${name}`);
  }
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config, undefined, 2) + "\n");
  const { prompts } = await readFixture<{ prompts: { text: string; ids: number[] }[] }>("llama/expected.json");
  for (let seed = 1; seed <= MAX_SEEDS; seed++) {
    const random = new Random(seed);
    const tensors = shapesOf(family, config).map((shape) => randomTensor(family, shape, random));
    await Deno.writeFile(`${directory}/model.safetensors`, encodeSafetensors(tensors));
    const answers = answersOf(await ReferenceModel.load(directory), prompts);
    if (answers === undefined) continue;
    await Deno.writeTextFile(`${directory}/expected.json`, JSON.stringify({ prompts: answers }) + "\n");
    processTerminal().line(
      `${family}: seed ${seed}, margins ${answers.map((answer) => answer["min_margin"]).join(", ")}`,
    );
    return;
  }
  throw new RangeError(`Cannot make ${family}: of ${MAX_SEEDS} seeds none keeps its logits ${MIN_MARGIN} apart`);
}

if (import.meta.main) {
  for (const [family, config] of Object.entries(CONFIGS)) {
    if (Deno.args.length === 0 || Deno.args.includes(family)) await make(family, config);
  }
}
