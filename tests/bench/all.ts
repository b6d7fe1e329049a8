/**
 * `deno task bench:all --out DIR [--phases NAME,…] [--shape SHAPE] [--modules DIR]`: every benchmark of docs/benchmarks.md, one process
 * after the other on one machine; each writes `NAME.json` and `NAME.md`, its command above its tables. A phase that fails or
 * takes too long is reported at the end, and the others still run.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { UsageError } from "../../router/errors.ts";
import { processTerminal } from "../../router/terminal.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A benchmark: the command without `--json`, and how long it may take. */
interface Phase {
  readonly args: readonly string[];
  readonly deadlineMs: number;
}

/** Lengths of context in every table of large models. */
const CONTEXTS = "1024,32768,98304";

/** On an H100 or H200 all of them take about ten minutes; `prefill` reads prompts of the whole length. */
function phasesOf(shape: string, out: string, modules: readonly string[]): Readonly<Record<string, Phase>> {
  const bench = (given: string, ...flags: string[]) => ["run", "-A", "mod.ts", "bench", ...given.split(" "), ...flags];
  const large = `--random ${shape} --budget 512`;
  const room = ["--kv-tokens", "106496"];
  const copied = [...room, "--fill", "copied", "--contexts", CONTEXTS];
  const quantized = (dtype: string): Phase => ({
    args: bench(large, ...copied, "--quantize", dtype, "--tokens", "64", "--untimed", "60"),
    deadlineMs: 120_000,
  });
  return {
    kernels: { args: ["run", "-A", "tests/kernels/bench.ts"], deadlineMs: 120_000 },
    decode: { args: bench(large, ...copied, "--corrections", "32", "--agreement", "0.96"), deadlineMs: 240_000 },
    prefill: {
      args: bench(large, ...room, ..."--contexts 4096,32768,98304 --chunk 2048 --tokens 2 --untimed 1".split(" ")),
      deadlineMs: 180_000,
    },
    profile: {
      args: bench(large, ...copied, ..."--chunk 2048 --tokens 2 --untimed 1 --profile".split(" ")),
      deadlineMs: 240_000,
    },
    batch: {
      args: bench(
        large,
        ..."--kv-tokens 200000 --fill copied --contexts 1024 --batch 1,8,32,64 --batch-context 4096".split(" "),
        ..."--tokens 64 --untimed 40".split(" "),
      ),
      deadlineMs: 180_000,
    },
    mha: {
      args: bench("--random llama-2-7b --budget 512", ...room, "--fill", "copied", "--contexts", "10240,32768,98304"),
      deadlineMs: 120_000,
    },
    q8: quantized("q8"),
    q4: quantized("q4"),
    q4k: quantized("q4k"),
    embedded: {
      args: bench("--kv-tokens 20000 --contexts 1024,16384 --tokens 400 --untimed 200"),
      deadlineMs: 90_000,
    },
    peer: {
      args: [
        ..."run -A tests/bench/peer.ts --contexts".split(" "),
        CONTEXTS,
        ...["--random", shape, "--ours", `${out}/decode.json`],
        ...modules,
      ],
      deadlineMs: 240_000,
    },
  };
}

/** @returns what went wrong, or undefined */
async function runPhase(name: string, { args, deadlineMs }: Phase, out: string): Promise<string | undefined> {
  const json = `${out}/${name}.json`;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args, "--json", json],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(deadlineMs),
  }).output();
  const decoder = new TextDecoder();
  const heading = `## ${name}\n\n\`deno ${args.join(" ")}\`\n\n`;
  await Deno.writeTextFile(`${out}/${name}.md`, heading + decoder.decode(stdout));
  if (code === 0) return undefined;
  const lines = decoder.decode(stderr).trim().split("\n").slice(-20).join("\n");
  return `ended with ${code} (it may take ${deadlineMs / 1000} s)\n${lines}`;
}

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    phases: { type: "string" },
    shape: { type: "string", default: "llama-3-8b" },
    modules: { type: "string" },
  },
});
const terminal = processTerminal();
const modules = values.modules === undefined ? [] : ["--modules", values.modules];
if (values.out === undefined) throw new UsageError("Cannot run benchmarks: needs --out DIR");
await Deno.mkdir(values.out, { recursive: true });
const out = await Deno.realPath(values.out);
const phases = phasesOf(values.shape, out, modules);
const chosen = values.phases?.split(",") ?? Object.keys(phases);
let failures = 0;
for (const name of chosen) {
  const phase = phases[name];
  if (phase === undefined) {
    throw new UsageError(`Cannot run ${name}: must be one of ${Object.keys(phases).join(", ")}`);
  }
  const start = performance.now();
  const problem = await runPhase(name, phase, out);
  if (problem !== undefined) failures++;
  terminal.line(`${name}: ${problem ?? `${((performance.now() - start) / 1000).toFixed(0)} s`}`);
}
Deno.exit(failures === 0 ? 0 : 1);
