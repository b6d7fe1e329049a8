/**
 * `deno task bench:peer [--random SHAPE] [--contexts N,…] [--ours FILE] [--json FILE] [--modules DIR] [--gpu vulkan|none]`:
 * prefill and decode of llama.cpp with random weights of a named shape, beside ours from a file of `bench --json`, or from a
 * `bench` that it runs itself. The npm package `node-llama-cpp` brings llama.cpp; it is fetched here and nowhere else.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { presetNamed } from "../../engine/model/presets.ts";
import { processTerminal } from "../../router/terminal.ts";
import { type BenchFile, readBenchFile } from "../../router/commands/bench/compare.ts";
import type { PeerResult } from "./llama_cpp.ts";
import { writeRandomGguf } from "./random_gguf.ts";

const PACKAGE = "node-llama-cpp@3.22.1";
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

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

/**
 * In a process of its own: the package finds its own dependencies from the folder that it is installed in, under no
 * configuration of this project. The measuring module is copied there for the same reason.
 */
async function measurePeer(work: string, contexts: readonly number[]): Promise<PeerResult> {
  const modules = await modulesDirectory(work);
  const { config } = presetNamed(values.random);
  const model = `${work}/random.gguf`;
  await writeRandomGguf(model, config);
  const script = `${modules}/llama_cpp.ts`;
  await Deno.copyFile(new URL("llama_cpp.ts", import.meta.url), script);
  const task = { model, gpu: values.gpu, contexts, tokens: Number(values.tokens), vocabSize: config.vocabSize };
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", "--node-modules-dir=manual", script, JSON.stringify(task)],
    cwd: modules,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).output();
  // llama.cpp may print to stdout too: the result is the last line.
  const line = new TextDecoder().decode(stdout).trim().split("\n").at(-1) ?? "";
  if (code !== 0) throw new Error(`Cannot measure llama.cpp: its process ended with ${code}`);
  return JSON.parse(line) as PeerResult;
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
