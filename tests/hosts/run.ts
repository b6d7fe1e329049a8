/**
 * Every fault that a group over several hosts meets, under load, as a table: `deno run -A tests/hosts/run.ts [dns] [nats]`.
 * Needs root, `ip`, and `nats-server` for the second. Exits with 1 when a stream did not end as it should.
 */

import { processTerminal } from "../../router/terminal.ts";
import { whyNoHosts } from "./network.ts";
import { type Found, Scene } from "./scene.ts";
import { type LoadResult, StreamLoad } from "./stream_load.ts";

const STREAMS = 3;
const WORKERS = 3;
const PARTITION_MS = 15_000;
const NATS_AWAY_MS = 8000;

interface Row {
  readonly what: string;
  /** Until requests are taken again; undefined when they never were not. */
  readonly servingMs?: number | undefined;
  readonly wholeMs: number | undefined;
  /** Why nothing was done. */
  readonly leftOut?: string;
  readonly load: LoadResult;
}

type Fault = (scene: Scene) => Promise<Omit<Row, "what" | "load">>;

const FAULTS: readonly { readonly what: string; readonly fault: Fault; readonly only?: Found }[] = [
  {
    what: "a worker is killed, and started again",
    async fault(scene) {
      const epoch = await scene.epoch();
      scene.kill(1, "SIGKILL");
      const servingMs = await scene.until((ready) => (ready.epoch ?? 0) > epoch);
      return { servingMs, wholeMs: servingMs + await scene.whole(WORKERS, epoch) };
    },
  },
  {
    what: `a worker is cut off for ${PARTITION_MS / 1000} s`,
    async fault(scene) {
      const epoch = await scene.epoch();
      const startedMs = performance.now();
      await scene.link(2, "down");
      const servingMs = await scene.until((ready) => (ready.epoch ?? 0) > epoch);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, PARTITION_MS - (performance.now() - startedMs))));
      await scene.link(2, "up");
      return { servingMs, wholeMs: await scene.whole(WORKERS, epoch) };
    },
  },
  {
    what: "rolling restart of all workers",
    async fault(scene) {
      const startedMs = performance.now();
      for (let worker = 0; worker < WORKERS; worker++) {
        const epoch = await scene.epoch();
        scene.kill(worker, "SIGTERM");
        // It leaves, which is one epoch, and is back, which is another.
        await scene.whole(WORKERS, epoch + 1);
      }
      return { wholeMs: performance.now() - startedMs };
    },
  },
  {
    what: `NATS is away for ${NATS_AWAY_MS / 1000} s and has lost all it stored`,
    only: "nats",
    async fault(scene) {
      const epoch = await scene.epoch();
      await scene.stopNats();
      await new Promise((resolve) => setTimeout(resolve, NATS_AWAY_MS));
      scene.startNats();
      await new Promise((resolve) => setTimeout(resolve, NATS_AWAY_MS / 2));
      if (await scene.epoch() !== epoch) {
        throw new Error("Cannot go on: the group was formed again although nothing was wrong with it");
      }
      return { wholeMs: undefined };
    },
  },
  {
    what: "a worker's link has 10 ms and loses 1 %, and a worker is killed",
    async fault(scene) {
      const epoch = await scene.epoch();
      if (!await scene.slow(0, 10, 1)) return { wholeMs: undefined, leftOut: "the kernel has no netem" };
      scene.kill(1, "SIGKILL");
      const servingMs = await scene.until((ready) => (ready.epoch ?? 0) > epoch);
      return { servingMs, wholeMs: servingMs + await scene.whole(WORKERS, epoch) };
    },
  },
];

async function play(found: Found, say: (line: string) => void): Promise<readonly Row[]> {
  await using scene = await Scene.open(found);
  const startedMs = performance.now();
  scene.startRouter("--min-workers", String(WORKERS - 1));
  for (let i = 0; i < WORKERS; i++) await scene.addWorker();
  await scene.whole(WORKERS);
  say(`${found}: ${WORKERS} workers serve after ${(performance.now() - startedMs).toFixed(0)} ms`);
  const rows: Row[] = [];
  for (const { what, fault, only } of FAULTS) {
    if (only !== undefined && only !== found) continue;
    const load = new StreamLoad(scene.url, STREAMS);
    while (load.ended < STREAMS) await new Promise((resolve) => setTimeout(resolve, 20));
    const times = await fault(scene);
    const before = load.ended;
    while (load.ended < before + STREAMS) await new Promise((resolve) => setTimeout(resolve, 20));
    const { leftOut } = times;
    const name = leftOut === undefined ? what : `${what} (left out: ${leftOut})`;
    rows.push({ what: name, ...times, load: await load.stop() });
    say(line(found, rows.at(-1)));
  }
  return rows;
}

function line(found: Found, row: Row | undefined): string {
  if (row === undefined) return "";
  const { what, servingMs, wholeMs, load: { ended, equal, failed, longestPauseMs } } = row;
  const ms = (value: number | undefined) => value === undefined ? "–" : value.toFixed(0);
  return `| ${found} | ${what} | ${ms(servingMs)} | ${ms(wholeMs)} | ${ended} | ${equal} | ${failed.length} | ${
    ms(longestPauseMs)
  } |`;
}

if (import.meta.main) {
  const terminal = processTerminal();
  const reason = await whyNoHosts();
  if (reason !== undefined) {
    terminal.error(`Cannot make hosts: ${reason}`);
    Deno.exit(1);
  }
  const asked = (["dns", "nats"] as const).filter((found) => Deno.args.length === 0 || Deno.args.includes(found));
  terminal.line(
    "| found by | fault | serving again after ms | all three again after ms | streams | equal | failed | longest pause ms |",
  );
  terminal.line("| --- | --- | --- | --- | --- | --- | --- | --- |");
  const failures: string[] = [];
  for (const found of asked) {
    const rows = await play(found, (text) => terminal.line(text));
    failures.push(...rows.flatMap(({ what, load }) => load.failed.map((why) => `${found}: ${what}: ${why}`)));
  }
  for (const failure of failures) terminal.error(failure);
  Deno.exit(failures.length === 0 ? 0 : 1);
}
