/**
 * `deno task bench:all --out DIR [--seconds N] [--phases NAME,…] [--shape SHAPE] [--modules DIR] [--files DIR] [--card NAME]`:
 * every benchmark of docs/benchmarks.md and docs/kernels.md on one card, one process after the other; each writes `NAME.json`, `NAME.md` (its command
 * above its tables), `NAME.log` and with `--card` `NAME.card`, and prints its tables as soon as it has them. With `--seconds`
 * phases that would not end in time are left out. Several cards may share a folder, each with phases of its own.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { UsageError } from "../../router/errors.ts";
import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { type Phase, phasesOf } from "./phases.ts";
import { kernelTables, pageTables } from "./page_tables.ts";
import { readFigures } from "./read_figures.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A phase may take longer than on an H200: so many times, or half of the time that is left; a hang leaves the rest to others. */
const PATIENCE = 2;
const MAX_SHARE = 0.5;
/** Of its estimate a phase must have this much time left to be begun: what it has measured by then is kept. */
const MIN_SHARE = 0.6;

interface Run {
  readonly out: string;
  /** What the tables call the card; undefined: what the adapter says. */
  readonly card: string | undefined;
  readonly terminal: Terminal;
  /** When everything must be over, by `performance.now`. */
  readonly endMs: number;
}

/** @returns what went wrong, or undefined */
async function runPhase(
  { name, args, env, seconds }: Phase,
  { out, card, terminal, endMs }: Run,
): Promise<string | undefined> {
  const leftMs = endMs - performance.now();
  if (leftMs < seconds * MIN_SHARE * 1000) {
    return `left out: it takes ${seconds} s, ${Math.round(leftMs / 1000)} are left`;
  }
  if (card !== undefined) await Deno.writeTextFile(`${out}/${name}.card`, card);
  const deadlineMs = Math.min(leftMs, Math.max(seconds * PATIENCE * 1000, leftMs * MAX_SHARE));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args, "--json", `${out}/${name}.json`],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(deadlineMs),
  }).output();
  const [text, log] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  const given = Object.entries(env ?? {}).map(([key, value]) => `${key}=${value} `).join("");
  const page = `## ${name}\n\n\`${given}deno ${args.join(" ").replaceAll(out, "DIR")}\`\n\n${text}`;
  await Deno.writeTextFile(`${out}/${name}.md`, page);
  await Deno.writeTextFile(`${out}/${name}.log`, log ?? "");
  terminal.line(page);
  if (code === 0) return undefined;
  const lines = (log ?? "").trim().split("\n").slice(-20).join("\n");
  return `ended with ${code} (it may take ${Math.round(deadlineMs / 1000)} s)\n${lines}`;
}

/** Writes the files of llama.cpp while other phases compute: they take as long to write as to measure. */
function writeFiles(
  phases: readonly Phase[],
  { shape, files, endMs }: { readonly shape: string; readonly files: string } & Pick<Run, "endMs">,
): Deno.ChildProcess | undefined {
  const types = phases.flatMap(({ peer }) => peer ?? []);
  if (types.length === 0) return undefined;
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "tests/bench/write_gguf.ts", "--random", shape, "--types", types.join(","), "--out", files],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
    signal: AbortSignal.timeout(Math.max(0, endMs - performance.now())),
  }).spawn();
}

async function runAll(phases: readonly Phase[], run: Run, writer: Deno.ChildProcess | undefined): Promise<number> {
  let failures = 0;
  for (const phase of phases) {
    if (phase.peer !== undefined) await writer?.status;
    const start = performance.now();
    const problem = await runPhase(phase, run);
    if (problem !== undefined) failures++;
    run.terminal.line(`${phase.name}: ${problem ?? `${((performance.now() - start) / 1000).toFixed(0)} s`}\n`);
  }
  const figures = await readFigures(run.out);
  for (const line of [...pageTables(figures), ...kernelTables(figures)]) run.terminal.line(line);
  return failures;
}

function chosen(all: readonly Phase[], names: string | undefined): readonly Phase[] {
  return names?.split(",").map((name) => {
    const phase = all.find((one) => one.name === name);
    if (phase !== undefined) return phase;
    throw new UsageError(`Cannot run ${name}: must be one of ${all.map((one) => one.name).join(", ")}`);
  }) ?? all;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      seconds: { type: "string", default: "3600" },
      phases: { type: "string" },
      shape: { type: "string", default: "llama-3-8b" },
      modules: { type: "string" },
      files: { type: "string" },
      card: { type: "string" },
    },
  });
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new UsageError(`Cannot run benchmarks: --seconds must be above 0, given ${values.seconds}`);
  const endMs = performance.now() + seconds * 1000;
  if (values.out === undefined) throw new UsageError("Cannot run benchmarks: needs --out DIR");
  await Deno.mkdir(values.out, { recursive: true });
  const out = await Deno.realPath(values.out);
  const files = values.files ?? await Deno.makeTempDir({ prefix: "tidepool-gguf-" });
  const modules = values.modules === undefined ? [] : ["--modules", values.modules];
  const phases = chosen(phasesOf({ shape: values.shape, files, modules }), values.phases);
  const writer = writeFiles(phases, { shape: values.shape, files, endMs });
  try {
    return await runAll(phases, { out, card: values.card, terminal: processTerminal(), endMs }, writer);
  } finally {
    await writer?.status;
    if (values.files === undefined) await Deno.remove(files, { recursive: true });
  }
}

Deno.exit(await main() === 0 ? 0 : 1);
