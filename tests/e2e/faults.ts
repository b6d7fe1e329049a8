/**
 * Workers of a running service are killed or stopped under load, one fault after the other: how long until that is noticed
 * and the group is whole again, how every stream ended, and whether each finished answer is the fault-free one.
 * `deno run -A tests/e2e/faults.ts [FAULTS] [SEED]` prints the tables; it exits with 1 when a promise broke.
 */

import { childrenOf, isRunning } from "../support/processes.ts";
import { Random } from "../support/random.ts";
import { serveProcess } from "../support/serve_process.ts";
import { AnswerLoad, AnswerTally, ask, REQUESTS } from "./fault_load.ts";

const FLAGS = ["--workers", "2", "--kv-tokens", "16384", "--context", "8192"];
const CLIENTS = 5;
/** Between a group that is whole and the next fault, give or take a fifth. */
const PAUSE_MS = 15_000;
/** What is promised of a worker that hangs. */
const NOTICED_MS = 10_000;
const WHOLE_MS = 120_000;
const IDLE_MS = 30_000;

type Fault = "SIGKILL" | "SIGSTOP";

/** Every fourth fault stops a worker, the others kill one. */
const faultOf = (index: number): Fault => index % 4 === 3 ? "SIGSTOP" : "SIGKILL";

interface Noticed {
  readonly fault: Fault;
  readonly noticedMs: number;
  readonly wholeMs: number;
}

async function isReady(origin: string): Promise<boolean> {
  const response = await fetch(`${origin}/ready`);
  await response.body?.cancel();
  return response.ok;
}

/** @returns after how long `/ready` said so */
async function readyIs(
  wanted: "ready" | "unready",
  { origin, sinceMs }: { origin: string; sinceMs: number },
): Promise<number> {
  while (await isReady(origin) !== (wanted === "ready")) {
    if (performance.now() - sinceMs > WHOLE_MS) {
      throw new Error(`Cannot measure: the group is not ${wanted} after ${WHOLE_MS} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return performance.now() - sinceMs;
}

/** One fault after the other, each on a whole group. */
async function breakWorkers(
  { origin, child }: { readonly origin: string; readonly child: Deno.ChildProcess },
  { faults, random }: { readonly faults: number; readonly random: Random },
): Promise<readonly Noticed[]> {
  const seen: Noticed[] = [];
  for (let index = 0; index < faults; index++) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * (0.8 + 0.4 * random.uniform())));
    const workers = (await childrenOf(child.pid)).filter(isRunning).sort((a, b) => a - b);
    const victim = workers[random.integer(workers.length)];
    if (victim === undefined) throw new Error("Cannot break a worker: there is none");
    const [fault, sinceMs] = [faultOf(index), performance.now()];
    Deno.kill(victim, fault);
    const noticedMs = await readyIs("unready", { origin, sinceMs });
    const wholeMs = await readyIs("ready", { origin, sinceMs });
    seen.push({ fault, noticedMs, wholeMs });
    print(`${index + 1} ${fault}: noticed after ${seconds(noticedMs)}, whole again after ${seconds(wholeMs)}`);
  }
  return seen;
}

/** Pages that are still held some time after the last answer. */
async function heldPages(origin: string): Promise<number> {
  const endMs = performance.now() + IDLE_MS;
  for (;;) {
    const metrics = await (await fetch(`${origin}/metrics`)).text();
    const usage = [...metrics.matchAll(/^tidepool_kv_cache_usage_perc(?:\{.*\})? (\S+)$/gm)].map(([, value]) =>
      Number(value)
    );
    const held = usage.reduce((sum, value) => sum + value, 0);
    if (held === 0 || performance.now() > endMs) return held;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function report(seen: readonly Noticed[], tally: AnswerTally): void {
  print(
    "| fault | times | noticed after s: median, longest | whole again after s: median, longest |\n|---|---|---|---|",
  );
  for (const fault of ["SIGKILL", "SIGSTOP"] as const) {
    const some = seen.filter((one) => one.fault === fault);
    const cells = [some.map(({ noticedMs }) => noticedMs), some.map(({ wholeMs }) => wholeMs)].map(medianAndLongest);
    print(`| ${[fault, some.length, ...cells].join(" | ")} |`);
  }
  const { endings, differing, longestSilenceMs } = tally;
  print("\n| streams that ended | |\n|---|---|");
  for (const [ending, count] of Object.entries(endings)) print(`| ${ending} | ${count} |`);
  print(`| differing from the fault-free answer | ${differing.length} of ${endings.whole + endings["error event"]} |`);
  print(
    `\nreasons: ${JSON.stringify(Object.fromEntries(tally.reasons))}; longest silence ${seconds(longestSilenceMs)} s`,
  );
  for (const { request, text } of differing) print(`request ${request} differs: ${JSON.stringify(text)}`);
}

function medianAndLongest(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  return [sorted[sorted.length >> 1], sorted.at(-1)].map((ms) => ms === undefined ? "–" : seconds(ms)).join(", ");
}

const seconds = (ms: number) => (ms / 1000).toFixed(2);

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** @returns whether every promise was kept */
async function run(faults: number, seed: number): Promise<boolean> {
  const served = await serveProcess(FLAGS);
  try {
    const undisturbed: string[] = [];
    for (const request of REQUESTS) undisturbed.push((await ask(served.origin, request)).text);
    const load = new AnswerLoad(served.origin, { clients: CLIENTS, tally: new AnswerTally(undisturbed) });
    const seen = await breakWorkers(served, { faults, random: new Random(seed) });
    await load.stop();
    const held = await heldPages(served.origin);
    report(seen, load.tally);
    print(`KV pages held after the last answer: ${held}`);
    const isNoticed = seen.every(({ noticedMs }) => noticedMs <= NOTICED_MS);
    const areWhole = load.tally.differing.length === 0 && load.tally.endings["no end"] === 0;
    return await endsCleanly(served.child) && isNoticed && areWhole && held === 0;
  } finally {
    // Harmless after the end that is asked for above.
    if (isRunning(served.child.pid)) served.child.kill("SIGTERM");
  }
}

async function endsCleanly(child: Deno.ChildProcess): Promise<boolean> {
  const workers = await childrenOf(child.pid);
  child.kill("SIGTERM");
  const { code } = await child.status;
  const left = workers.filter(isRunning).length;
  print(`SIGTERM: exit ${code}, ${left} processes left`);
  return code === 0 && left === 0;
}

if (import.meta.main) {
  const [faults = 30, seed = 3] = Deno.args.map(Number);
  if (!Number.isInteger(faults) || faults < 1) {
    throw new Error(`Cannot break workers: FAULTS must be above 0, given ${faults}`);
  }
  Deno.exit(await run(faults, seed) ? 0 : 1);
}
