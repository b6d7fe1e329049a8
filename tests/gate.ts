/**
 * The whole gate, from a fresh machine on: a Vulkan driver, format, lint, types, docs, import cycles, tests, examples.
 * Stops at the first stage that fails. Knows programs and their deadlines; knows nothing of what they check.
 */

import { fileURLToPath } from "node:url";
import { CodedError } from "../kernels/errors.ts";
import { ensureVulkanDriver } from "../router/vulkan_driver.ts";
import { processTerminal, type Terminal } from "../router/terminal.ts";
import { findImportCycle, type ModuleGraph } from "./support/import_cycles.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** How long the output of a stage may come after its end. */
const PIPE_MS = 5000;

interface Stage {
  readonly name: string;
  readonly args: readonly string[];
  readonly deadlineMs: number;
  /** Shown as it comes, not only when the stage fails. */
  readonly live?: boolean;
  /** A complaint about the output of a stage that ended well. */
  readonly complaint?: (stdout: string) => string | undefined;
}

/** The tests one file after the other: a software GPU uses all cores anyway. */
const STAGES: readonly Stage[] = [
  { name: "format", args: ["fmt", "--check"], deadlineMs: 60_000 },
  { name: "lint", args: ["lint"], deadlineMs: 120_000 },
  { name: "types", args: ["check"], deadlineMs: 300_000 },
  { name: "doc lint", args: ["doc", "--lint", "mod.ts"], deadlineMs: 120_000 },
  { name: "import cycles", args: ["info", "--json", "mod.ts"], deadlineMs: 60_000, complaint: cycleIn },
  { name: "tests", args: ["test", "-A", "tests"], deadlineMs: 900_000, live: true },
  { name: "examples", args: ["test", "-A", "--doc"], deadlineMs: 180_000, live: true },
];

interface Totals {
  passed: number;
  failed: number;
}

async function main(terminal: Terminal): Promise<number> {
  await ensureVulkanDriver((line) => terminal.line(line));
  const totals: Totals = { passed: 0, failed: 0 };
  const seconds: string[] = [];
  const failed = await firstFailure(terminal, totals, seconds);
  terminal.line(`\n${seconds.join("\n")}`);
  terminal.line(`${totals.passed} passed, ${totals.failed} failed`);
  if (failed !== undefined) terminal.error(`Gate failed at: ${failed}`);
  return failed === undefined ? 0 : 1;
}

async function firstFailure(terminal: Terminal, totals: Totals, seconds: string[]): Promise<string | undefined> {
  const gateStarted = performance.now();
  for (const stage of STAGES) {
    const args = stage.name === "examples" ? [...stage.args, ...await documentedModules()] : stage.args;
    const started = performance.now();
    const { code, stdout, shown } = await run({ ...stage, args }, terminal);
    seconds.push(`${stage.name.padEnd(14)} ${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s`);
    for (const [, passed, failed] of stdout.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed/gm)) {
      totals.passed += Number(passed);
      totals.failed += Number(failed);
    }
    const complaint = code === 0 ? stage.complaint?.(stdout) : `ended with ${code}`;
    if (complaint === undefined) continue;
    if (!stage.live) terminal.line(shown);
    terminal.line(`${stage.name}: ${complaint}`);
    return stage.name;
  }
  seconds.push(`${"all".padEnd(14)} ${((performance.now() - gateStarted) / 1000).toFixed(1).padStart(6)} s`);
  return undefined;
}

interface Run {
  readonly code: number;
  readonly stdout: string;
  /** stdout and stderr as they came; of no use when the stage speaks JSON. */
  readonly shown: string;
}

/** A child of this very Deno; killed at its deadline. */
async function run(stage: Stage, terminal: Terminal): Promise<Run> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...stage.args],
    cwd: ROOT,
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => {
    terminal.error(`${stage.name} took over ${stage.deadlineMs / 1000} s`);
    child.kill("SIGKILL");
  }, stage.deadlineMs);
  let shown = "";
  const show = (text: string) => {
    shown += text;
    if (stage.live) terminal.write(text);
  };
  let stdout = "";
  const collected = Promise.all([
    collect(child.stdout, (text) => {
      stdout += text;
      if (stage.complaint === undefined) show(text);
    }),
    collect(child.stderr, show),
  ]);
  const { code } = await child.status.finally(() => clearTimeout(timer));
  // A grandchild that outlives a killed stage holds its pipes: they are not waited for.
  let grace: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => grace = setTimeout(resolve, PIPE_MS));
  await Promise.race([collected, late]).finally(() => clearTimeout(grace));
  return { code, stdout, shown };
}

async function collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
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
