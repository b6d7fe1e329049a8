/**
 * `deno task bench:peer [--types f16,q8_0,q4_0] [--random SHAPE] [--contexts N,…] [--fill copied] [--ours FILE] [--json FILE]
 * [--modules DIR] [--files DIR] [--gpu vulkan|none] [--no-shares] [--alone]`: prefill and decode of llama.cpp with random weights
 * of a named shape, beside ours from a file of `bench --json`, or from a `bench` that it runs itself for each type of weights; with
 * `--alone` beside nothing, with `--no-shares` without shares of the card's reads. The npm package `node-llama-cpp` brings
 * llama.cpp; it is fetched here and nowhere else.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Preset, presetNamed } from "../../engine/model/presets.ts";
import { measureCeilings } from "../../kernels/ceilings.ts";
import { openGpu } from "../../kernels/choose_provider.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { BLOCKS, isBlockType } from "../../kernels/weights/source_types.ts";
import { processTerminal } from "../../router/terminal.ts";
import { type BenchFile, readBenchFile } from "../../router/commands/bench/compare.ts";
import type { PeerResult } from "./llama_cpp.ts";
import { COLUMNS, type Compared, matrixTypeNamed, rowsOf } from "./peer_table.ts";
import { type MatrixType, randomGguf } from "./random_gguf.ts";

const PACKAGE = "node-llama-cpp@3.22.1";
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const { values } = parseArgs({
  allowNegative: true,
  options: {
    types: { type: "string", default: "f16" },
    random: { type: "string", default: "llama-3-8b" },
    contexts: { type: "string", default: "1024,4096" },
    tokens: { type: "string", default: "128" },
    fill: { type: "string", default: "prefill" },
    ours: { type: "string" },
    json: { type: "string" },
    modules: { type: "string" },
    files: { type: "string" },
    shares: { type: "boolean", default: true },
    alone: { type: "boolean", default: false },
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

interface PeerRun {
  readonly work: string;
  readonly modules: string;
  readonly type: MatrixType;
  readonly contexts: readonly number[];
}

/**
 * In a process of its own: the package finds its own dependencies from the folder that it is installed in, under no
 * configuration of this project. The measuring module is copied there for the same reason.
 */
async function measurePeer({ work, modules, type, contexts }: PeerRun, { config }: Preset): Promise<PeerResult> {
  const model = await randomGguf(values.files ?? work, { shape: values.random, config, type });
  const script = `${modules}/llama_cpp.ts`;
  await Deno.copyFile(new URL("llama_cpp.ts", import.meta.url), script);
  const task = { model, gpu: values.gpu, contexts, tokens: Number(values.tokens), vocabSize: config.vocabSize };
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", "--node-modules-dir=manual", script, JSON.stringify(task)],
    cwd: modules,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
    signal: stop.signal,
  }).output();
  // llama.cpp may print to stdout too: the result is the last line.
  const line = new TextDecoder().decode(stdout).trim().split("\n").at(-1) ?? "";
  if (code !== 0) throw new Error(`Cannot measure llama.cpp: its process ended with ${code}`);
  return JSON.parse(line) as PeerResult;
}

async function ownFigures(
  { work, type, contexts }: PeerRun,
  { calibration: { budget } }: Preset,
): Promise<BenchFile | undefined> {
  if (values.alone) return undefined;
  if (values.ours !== undefined) return await readBenchFile(values.ours);
  const file = `${work}/ours.json`;
  const tokens = Number(values.tokens);
  const flags = {
    random: values.random,
    contexts: contexts.join(","),
    tokens,
    budget,
    chunk: 2048,
    fill: values.fill,
    json: file,
    ...(isBlockType(type) && { quantize: BLOCKS[type].keptAs }),
  };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  await run(Deno.execPath(), ["run", "-A", "mod.ts", "bench", ...args]);
  return await readBenchFile(file);
}

/** GB/s of streaming reads; undefined where the adapter has no clock to measure them by. */
async function readCeiling(): Promise<number | undefined> {
  const gpu = await openGpu();
  try {
    if (!gpu.info.timestamps) return undefined;
    return (await measureCeilings(new Commands(gpu))).readGigabytesPerSecond;
  } finally {
    await gpu.close();
  }
}

// Nothing that it has started outlives it.
const stop = new AbortController();
Deno.addSignalListener("SIGTERM", () => stop.abort());
const terminal = processTerminal();
const preset = presetNamed(values.random);
const contexts = values.contexts.split(",").map(Number);
const types = values.types.split(",").map(matrixTypeNamed);
if (values.ours !== undefined && types.length > 1) throw new RangeError("Cannot take ours from one file for all types");
const work = await Deno.makeTempDir({ prefix: "tidepool-peer-" });
try {
  const ceiling = values.shares ? await readCeiling() : undefined;
  const modules = await modulesDirectory(work);
  const compared: Compared[] = [];
  for (const type of types) {
    const run = { work, modules, type, contexts };
    const ours = await ownFigures(run, preset);
    compared.push({ type, ours, peer: await measurePeer(run, preset) });
  }
  const measured = ceiling === undefined ? "not measured" : `${ceiling.toFixed(0)} GB/s`;
  terminal.line(`${values.random}, random weights, one sequence, ${values.tokens} tokens; ${compared[0]?.peer.about}`);
  terminal.line(
    `Shares are of streaming reads (${measured}): weights, and keys and values that a token reads at least\n`,
  );
  terminal.line(`| ${COLUMNS.join(" | ")} |`);
  terminal.line(`| ${COLUMNS.map(() => "---").join(" | ")} |`);
  for (const row of compared.flatMap((one) => rowsOf(one, preset, ceiling))) terminal.line(`| ${row.join(" | ")} |`);
  if (values.json !== undefined) {
    const results = compared.map(({ type, ours, peer }) => ({ type, ...peer, ours: ours?.named }));
    await Deno.writeTextFile(values.json, JSON.stringify({ readGigabytesPerSecond: ceiling, results }, undefined, 2));
  }
} finally {
  await Deno.remove(work, { recursive: true });
}
