/**
 * The whole gate, from a fresh machine on: a Vulkan driver, format, lint, types, docs, import cycles, tests, examples.
 * Stages that do not disturb each other run side by side; the first that fails stops the rest. Nothing that a stage
 * started outlives the gate, whether it ends, is interrupted or is killed.
 */

import { fileURLToPath } from "node:url";
import { CodedError } from "../kernels/errors.ts";
import { processTerminal, type Terminal } from "../router/terminal.ts";
import { ensureVulkanDriver } from "../router/host/vulkan_driver.ts";
import { changedTests } from "./gate/changed_tests.ts";
import { CpuMeter } from "./gate/cpu_meter.ts";
import { Guard } from "./gate/guard.ts";
import { type Outcome, runStage, type Stage, type StageHost } from "./gate/stage.ts";
import { findImportCycle, type ModuleGraph } from "./support/import_cycles.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** The longest single test takes a minute on two busy cores. */
const SILENCE_MS = 300_000;

const quiet = (name: string, args: readonly string[]): Stage => ({ name, args, silenceMs: SILENCE_MS });
/** Folders that a stage of their own runs: those need matrix units, these take long but measure no times. */
const APART = ["tests/kernels/matrix", "tests/e2e/answers"];
/** @param done test files that have run already */
const tests = (name: string, folders: readonly string[], done: readonly string[] = []): Stage => {
  const ignored = [...APART.filter((folder) => !folders.includes(folder)), ...done];
  // A stage may have nothing else.
  const empty = done.length > 0 ? ["--permit-no-files"] : [];
  return {
    name,
    args: ["test", "-A", "--no-check", `--ignore=${ignored}`, ...empty, ...folders],
    silenceMs: SILENCE_MS,
    live: true,
  };
};

/** What takes seconds and needs no GPU: the lists at the same time, each in its order. */
const CHECKS: readonly (readonly Stage[])[] = [
  [quiet("format", ["fmt", "--check"]), quiet("lint", ["lint"])],
  // Those of examples in comments as well.
  [quiet("types", ["check", "--doc"])],
  [
    quiet("doc lint", ["doc", "--lint", "mod.ts"]),
    { ...quiet("import cycles", ["info", "--json", "mod.ts"]), complaint: cycleIn },
  ],
];

/** Makes its driver at the first run, which is mostly downloads; where it cannot, it says so. */
const MATRIX: Stage = { ...quiet("matrix", ["run", "-A", "tests/matrix/run.ts"]), live: true };

/** Stages of tests that run at a time: those of one wait for timers and processes while those of the other compute. */
const LANES = 2;

/**
 * In the order in which lanes take them, long ones first, so that all lanes end at about the same time. The files of a
 * stage run one at a time: a software GPU uses all cores.
 */
const testStages = async (done: readonly string[]): Promise<readonly Stage[]> => [
  tests(
    "router",
    ["router", "clients", "workers", "support", "fuzz", "gate", "docs", "deploy", "hosts", "bench"].map((room) =>
      `tests/${room}`
    ),
    done,
  ),
  tests("engine", ["tests/engine", "tests/contracts"], done),
  tests("end to end", ["tests/e2e"], done),
  tests("answers", ["tests/e2e/answers"], done),
  tests("kernels", ["tests/kernels", "tests/reference"], done),
  { ...quiet("examples", ["test", "-A", "--doc", "--no-check", ...await documentedModules()]), live: true },
  MATRIX,
];

async function main(terminal: Terminal): Promise<number> {
  await ensureVulkanDriver((line) => terminal.line(line));
  const startMs = performance.now();
  const stop = new AbortController();
  const interrupted = () => stop.abort();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, interrupted);
  await using guard = new Guard();
  const cpu = new CpuMeter();
  const host: StageHost = { guard, cpu, directory: ROOT, signal: stop.signal, write: (text) => terminal.write(text) };
  const outcomes: Outcome[] = [];
  const changed = (await changedTests(new URL("..", import.meta.url))).filter((path) => !needsItsOwnStage(path));
  const run = async (stage: Stage) => {
    const isRun = !stop.signal.aborted;
    if (isRun) terminal.line(`${stage.name} begins`);
    const outcome = await runStage(stage, host);
    if (isRun) terminal.line(outcomeLine(outcome));
    outcomes.push(outcome);
    if (outcome.complaint !== undefined) stop.abort();
  };
  /** Runs stages one after the other; several calls may share a list. */
  const lane = async (waiting: Stage[]) => {
    for (let stage = waiting.shift(); stage !== undefined; stage = waiting.shift()) await run(stage);
  };
  await Promise.all(CHECKS.map((stages) => lane([...stages])));
  if (changed.length > 0) await run(tests("changed", changed));
  const waiting = [...await testStages(changed)];
  await Promise.all(Array.from({ length: LANES }, () => lane(waiting)));
  return summary(terminal, outcomes, (performance.now() - startMs) / 1000);
}

function needsItsOwnStage(path: string): boolean {
  return APART.some((folder) => path.startsWith(`${folder}/`));
}

function outcomeLine({ stage, complaint, seconds, cpuSeconds }: Outcome): string {
  const cpu = cpuSeconds === undefined ? "" : `${cpuSeconds.toFixed(1).padStart(6)} s of the CPU `;
  return `${stage.name.padEnd(14)} ${seconds.toFixed(1).padStart(6)} s ${cpu}${complaint ?? ""}`.trimEnd();
}

/** How long each stage took, and what failed. */
function summary(terminal: Terminal, outcomes: readonly Outcome[], seconds: number): number {
  for (const { stage, complaint, shown } of outcomes) {
    if (complaint !== undefined && !stage.live) terminal.line(`\n${stage.name}:\n${shown}`);
  }
  terminal.line("");
  let [passed, failed] = [0, 0];
  for (const outcome of outcomes) {
    terminal.line(outcomeLine(outcome));
    for (const [, good, bad] of outcome.stdout.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed/gm)) {
      passed += Number(good);
      failed += Number(bad);
    }
  }
  const cpuSeconds = outcomes.reduce((sum, outcome) => sum + (outcome.cpuSeconds ?? 0), 0);
  const cpu = cpuSeconds === 0 ? "" : `${cpuSeconds.toFixed(1).padStart(6)} s of the CPU`;
  terminal.line(`${"all".padEnd(14)} ${seconds.toFixed(1).padStart(6)} s ${cpu}`.trimEnd());
  terminal.line(`${passed} passed, ${failed} failed`);
  const first = outcomes.find(({ complaint }) => complaint !== undefined);
  if (first !== undefined) terminal.error(`Gate failed at: ${first.stage.name}, ${first.complaint}`);
  return first === undefined ? 0 : 1;
}

function cycleIn(graphJson: string): string | undefined {
  const cycle = findImportCycle(JSON.parse(graphJson) as ModuleGraph);
  return cycle === undefined ? undefined : `modules import each other: ${cycle.join(" → ")}`;
}

/** `mod.ts` and the modules it re-exports from: where the examples of the public surface stand. */
async function documentedModules(): Promise<readonly string[]> {
  const text = await Deno.readTextFile(new URL("../mod.ts", import.meta.url));
  const sources = [...text.matchAll(/^(?:export|\}).* from "(\.\/[^"]+)";$/gm)].map(([, source]) => source ?? "");
  return ["mod.ts", ...new Set(sources)];
}

if (import.meta.main) {
  const terminal = processTerminal();
  try {
    Deno.exit(await main(terminal));
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    terminal.error(error.message);
    Deno.exit(1);
  }
}
