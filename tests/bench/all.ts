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

/** On an H100 or H200 all of them take less than eight minutes; `prefill` reads prompts of the whole length. */
function phasesOf(shape: string, out: string, modules: readonly string[]): Readonly<Record<string, Phase>> {
  const bench = ["run", "-A", "mod.ts", "bench", "--random", shape, "--budget", "512"];
  return {
    kernels: { args: ["run", "-A", "tests/kernels/bench.ts"], deadlineMs: 90_000 },
    speed: { args: [...bench, "--contexts", "1024,4096"], deadlineMs: 60_000 },
    long: {
      args: [
        ...[...bench, "--contexts", "32768,100000", "--fill", "copied"],
        ...["--corrections", "8,32", "--agreement", "0.9,0.96"],
      ],
      deadlineMs: 180_000,
    },
    profile: {
      args: [
        ...bench,
        "--contexts",
        "4096,32768,100000",
        "--fill",
        "copied",
        "--tokens",
        "2",
        "--untimed",
        "1",
        "--profile",
      ],
      deadlineMs: 180_000,
    },
    batch: {
      args: [...bench, "--contexts", "1024", "--tokens", "64", "--untimed", "32", "--batch", "1,8,32,64"],
      deadlineMs: 120_000,
    },
    prefill: {
      args: [...bench, "--contexts", "4096,32768", "--tokens", "2", "--untimed", "1"],
      deadlineMs: 120_000,
    },
    mha: {
      args: [...["run", "-A", "mod.ts", "bench", "--random", "llama-2-7b", "--budget", "512"], ...[
        "--contexts",
        "4096,32768",
      ], ...["--fill", "copied"]],
      deadlineMs: 120_000,
    },
    peer: {
      args: [
        ...[
          "run",
          "-A",
          "tests/bench/peer.ts",
          "--random",
          shape,
          "--contexts",
          "1024,4096",
          "--ours",
          `${out}/speed.json`,
        ],
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
