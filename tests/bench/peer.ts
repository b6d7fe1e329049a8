/**
 * `deno task bench:peer [--random SHAPE] [--contexts N,…] [--ours FILE] [--json FILE] [--modules DIR] [--gpu vulkan|none]`:
 * prefill and decode of llama.cpp with random weights of a named shape, beside ours from a file of `bench --json`, or from a
 * `bench` that it runs itself. The npm package `node-llama-cpp` brings llama.cpp; it is fetched here and nowhere else.
 */

import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { presetNamed } from "../../engine/model/presets.ts";
import { processTerminal } from "../../router/terminal.ts";
import { type BenchFile, readBenchFile } from "../../router/commands/bench/compare.ts";
import { writeRandomGguf } from "./random_gguf.ts";

const PACKAGE = "node-llama-cpp@3.22.1";
const UNTIMED_TOKENS = 8;
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** What is used of the package, whose own types come with it only where it is installed. */
interface LlamaModule {
  getLlama(options: Record<string, unknown>): Promise<{
    readonly gpu: string | false;
    readonly llamaCppRelease?: { readonly release: string };
    loadModel(options: Record<string, unknown>): Promise<LlamaModel>;
    dispose(): Promise<void>;
  }>;
}

interface LlamaModel {
  readonly gpuLayers: number;
  createContext(options: Record<string, unknown>): Promise<{ getSequence(): LlamaSequence }>;
}

interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: Record<string, unknown>): AsyncGenerator<number>;
}

interface PeerFigures {
  readonly context: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}

const { values } = parseArgs({
  options: {
    random: { type: "string", default: "llama-3-8b" },
    contexts: { type: "string", default: "1024,4096" },
    tokens: { type: "string", default: "128" },
    ours: { type: "string" },
    json: { type: "string" },
    modules: { type: "string" },
    gpu: { type: "string", default: "vulkan" },
  },
});

/** Installed without scripts: the binaries are packages of their own, and nothing is compiled. */
async function modulesDirectory(work: string): Promise<string> {
  if (values.modules !== undefined) return await Deno.realPath(values.modules);
  await run("npm", ["install", "--prefix", work, "--ignore-scripts", "--no-audit", "--no-fund", "--silent", PACKAGE]);
  return work;
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const child = new Deno.Command(program, {
    args: [...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  });
  const { code } = await child.output();
  if (code !== 0) throw new Error(`Cannot run ${program} ${args[0]}: ended with ${code}`);
}

async function measurePeer(work: string, contexts: readonly number[]) {
  const modules = await modulesDirectory(work);
  const entry = pathToFileURL(`${modules}/node_modules/node-llama-cpp/dist/index.js`).href;
  const { getLlama }: LlamaModule = await import(entry);
  const { config } = presetNamed(values.random);
  const path = `${work}/random.gguf`;
  await writeRandomGguf(path, config);
  const onGpu = values.gpu !== "none";
  const llama = await getLlama({
    gpu: onGpu ? values.gpu : false,
    build: "never",
    skipDownload: true,
    logLevel: "error",
  });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: onGpu ? "max" : 0 });
  const tokens = Number(values.tokens);
  const context = await model.createContext({
    contextSize: Math.max(...contexts) + tokens + UNTIMED_TOKENS + 8,
    batchSize: 2048,
    flashAttention: true,
    ignoreMemorySafetyChecks: true,
  });
  const sequence = context.getSequence();
  await measureOne(sequence, Math.min(256, ...contexts), tokens);
  const figures: PeerFigures[] = [];
  for (const length of contexts) figures.push(await measureOne(sequence, length, tokens));
  const release = llama.llamaCppRelease?.release ?? "of unknown release";
  const where = llama.gpu === false ? "CPU" : `${llama.gpu}, ${model.gpuLayers} layers on the GPU`;
  await llama.dispose();
  return { about: `llama.cpp ${release}, ${where}`, figures };
}

async function measureOne(sequence: LlamaSequence, context: number, tokens: number): Promise<PeerFigures> {
  await sequence.clearHistory();
  // Words of the vocabulary, no special ones; they differ from one position to the next.
  const words = presetNamed(values.random).config.vocabSize - 300;
  const prompt = Array.from({ length: context }, (_, i) => 280 + (i * 7919) % words);
  const start = performance.now();
  let [first, settled, drawn] = [0, 0, 0];
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (drawn === 0) first = performance.now();
    if (drawn === UNTIMED_TOKENS) settled = performance.now();
    if (++drawn > UNTIMED_TOKENS + tokens) break;
  }
  return {
    context,
    prefillTokensPerSecond: context / (first - start) * 1000,
    decodeTokensPerSecond: tokens / (performance.now() - settled) * 1000,
  };
}

async function ownFigures(work: string, contexts: readonly number[]): Promise<BenchFile> {
  if (values.ours !== undefined) return await readBenchFile(values.ours);
  const file = `${work}/ours.json`;
  const shape = ["--random", values.random, "--contexts", contexts.join(","), "--tokens", values.tokens];
  await run(Deno.execPath(), ["run", "-A", "mod.ts", "bench", ...shape, "--json", file]);
  return await readBenchFile(file);
}

const terminal = processTerminal();
const work = await Deno.makeTempDir({ prefix: "tidepool-peer-" });
try {
  const contexts = values.contexts.split(",").map(Number);
  const ours = await ownFigures(work, contexts);
  const peer = await measurePeer(work, contexts);
  const speeds = new Map(ours.named.map(({ name, value }) => [name, value]));
  const rows = peer.figures.map(({ context, prefillTokensPerSecond, decodeTokensPerSecond }) => {
    const own = (what: string) => speeds.get(`1 worker, ${context}: ${what} tokens/s`)?.toFixed(1) ?? "–";
    const theirs = [prefillTokensPerSecond, decodeTokensPerSecond].map((value) => value.toFixed(1));
    return [context, own("prefill"), theirs[0], own("decode dense"), own("decode sparse"), theirs[1]];
  });
  terminal.line(`${values.random}, random f16 weights, one sequence, ${values.tokens} tokens; ${peer.about}\n`);
  terminal.line("| context | prefill tokens/s | llama.cpp | decode dense tokens/s | decode sparse | llama.cpp |");
  terminal.line("| --- | --- | --- | --- | --- | --- |");
  for (const row of rows) terminal.line(`| ${row.join(" | ")} |`);
  if (values.json !== undefined) {
    await Deno.writeTextFile(values.json, JSON.stringify({ ...peer, ours: ours.named }, undefined, 2) + "\n");
  }
} finally {
  await Deno.remove(work, { recursive: true });
}
// llama.cpp's threads outlive its disposal.
Deno.exit(0);
