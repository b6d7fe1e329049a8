/**
 * How fast weights come from files onto the GPU: a directory with random bf16 weights is made, loaded from the page cache and
 * from the disk, and removed. `deno task bench:loading`; `--gib` chooses the size, `--rounds` how often, `--gpu` the way to the
 * GPU, `--json` a file for the figures.
 */

import { parseArgs } from "node:util";

import { GPU_CHOICES, type GpuChoice, openGpu } from "../../kernels/choose_provider.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { openTensors } from "../../engine/model/checkpoint.ts";
import { type ModelConfig, readModelConfig } from "../../engine/model/model_config.ts";
import { freeWeights, loadWeights } from "../../engine/model/weights.ts";
import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { Random } from "../support/random.ts";
import { writeAll } from "../support/write_all.ts";

const GIB = 2 ** 30;
const OPTIONS = {
  gib: { type: "string", default: "1.5" },
  rounds: { type: "string", default: "3" },
  json: { type: "string" },
  gpu: { type: "string", default: "auto" },
} as const;

/** A llama's layer of 8B proportions, half as wide. */
const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  "model_type": "llama",
  "vocab_size": 32768,
  "hidden_size": 2048,
  "intermediate_size": 7168,
  "num_attention_heads": 16,
  "num_key_value_heads": 4,
  "max_position_embeddings": 4096,
} as const;

/** Random values that are written again and again: making billions would take longer than the bench. */
const BLOCK_VALUES = 2 ** 20;

function shapesOf(layers: number): readonly (readonly [string, readonly number[]])[] {
  const { hidden_size: hidden, intermediate_size: ffn, vocab_size: vocabSize } = CONFIG;
  const kv = hidden / CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"];
  const layer = (at: string) =>
    [
      [`${at}.input_layernorm.weight`, [hidden]],
      [`${at}.post_attention_layernorm.weight`, [hidden]],
      [`${at}.self_attn.q_proj.weight`, [hidden, hidden]],
      [`${at}.self_attn.k_proj.weight`, [kv, hidden]],
      [`${at}.self_attn.v_proj.weight`, [kv, hidden]],
      [`${at}.self_attn.o_proj.weight`, [hidden, hidden]],
      [`${at}.mlp.gate_proj.weight`, [ffn, hidden]],
      [`${at}.mlp.up_proj.weight`, [ffn, hidden]],
      [`${at}.mlp.down_proj.weight`, [hidden, ffn]],
    ] as const;
  return [
    ["model.embed_tokens.weight", [vocabSize, hidden]],
    ...Array.from({ length: layers }, (_, i) => layer(`model.layers.${i}`)).flat(),
    ["model.norm.weight", [hidden]],
    ["lm_head.weight", [vocabSize, hidden]],
  ];
}

function bytesOf(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 2);
}

/** Writes a model of about so many bytes. @returns its size */
async function writeModel(directory: string, bytes: number): Promise<number> {
  const total = (layers: number) => shapesOf(layers).reduce((sum, [, shape]) => sum + bytesOf(shape), 0);
  const layers = Math.max(1, Math.round((bytes - total(0)) / (total(1) - total(0))));
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify({ ...CONFIG, "num_hidden_layers": layers }));
  let end = 0;
  const header = Object.fromEntries(
    shapesOf(layers).map(([name, shape]) => {
      const start = end;
      end += bytesOf(shape);
      return [name, { dtype: "BF16", shape, "data_offsets": [start, end] }];
    }),
  );
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = new BigUint64Array([BigInt(json.length)]);
  const words = new Uint32Array(new Random(1).normals(BLOCK_VALUES, 0.02).buffer);
  const block = new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
  using file = await Deno.open(`${directory}/model.safetensors`, { write: true, create: true });
  await writeAll(file, new Uint8Array(length.buffer));
  await writeAll(file, json);
  for (let left = end; left > 0; left -= block.length) {
    await writeAll(file, block.subarray(0, Math.min(left, block.length)));
  }
  await file.sync();
  return end;
}

/** Drops a file from the page cache. */
async function dropFromCache(path: string): Promise<void> {
  const { success } = await new Deno.Command("dd", {
    args: [`if=${path}`, "iflag=nocache", "count=0"],
    stderr: "null",
  }).output();
  if (!success) throw new Error(`Cannot drop ${path} from the page cache: dd failed`);
}

/** @returns seconds */
async function timeLoad(commands: Commands, config: ModelConfig, directory: string): Promise<number> {
  const start = performance.now();
  using files = await openTensors(directory);
  const weights = await loadWeights(commands, config, { files, onProgress: () => {} });
  await commands.gpu.settle();
  const seconds = (performance.now() - start) / 1000;
  freeWeights(commands, weights);
  await commands.gpu.settle();
  return seconds;
}

/** What the file of `--json` holds. */
export interface LoadingFigures {
  readonly adapter: string;
  readonly gigabytes: number;
  /** Of each load, by where it came from. */
  readonly gigabytesPerSecond: Readonly<Record<string, readonly number[]>>;
}

function choiceNamed(name: string): GpuChoice {
  const choice = GPU_CHOICES.find((known) => known === name);
  if (choice !== undefined) return choice;
  throw new RangeError(`Cannot load weights: --gpu must be one of ${GPU_CHOICES.join(", ")}, given ${name}`);
}

async function main(terminal: Terminal): Promise<void> {
  const { values } = parseArgs({ args: Deno.args, options: OPTIONS });
  const directory = await Deno.makeTempDir({ prefix: "tidepool-loading-" });
  const gpu = await openGpu({ choice: choiceNamed(values.gpu), log: (line) => terminal.line(line) });
  try {
    const bytes = await writeModel(directory, Number(values.gib) * GIB);
    terminal.line(`${(bytes / 1e9).toFixed(2)} GB of bf16 on ${gpu.info.adapter} (${gpu.info.provider})`);
    const commands = new Commands(gpu);
    const config = await readModelConfig(directory);
    const gigabytesPerSecond: Record<string, readonly number[]> = {};
    for (const from of ["page cache", "disk"] as const) {
      const seconds: number[] = [];
      for (let round = 0; round < Number(values.rounds); round++) {
        if (from === "disk") await dropFromCache(`${directory}/model.safetensors`);
        seconds.push(await timeLoad(commands, config, directory));
      }
      const rates = seconds.map((s) => bytes / 1e9 / s);
      gigabytesPerSecond[from] = rates;
      const each = rates.map((rate) => rate.toFixed(2)).join(", ");
      terminal.line(`from the ${from}: ${each} GB/s, best ${Math.max(...rates).toFixed(2)}`);
    }
    const figures: LoadingFigures = { adapter: gpu.info.adapter, gigabytes: bytes / 1e9, gigabytesPerSecond };
    if (values.json !== undefined) await Deno.writeTextFile(values.json, JSON.stringify(figures, undefined, 2) + "\n");
  } finally {
    await gpu.close();
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) await main(processTerminal());
