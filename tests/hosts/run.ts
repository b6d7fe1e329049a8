/**
 * Every fault that a group over several hosts meets, under load, as a table: `deno run -A tests/hosts/run.ts [dns] [nats]`.
 * Needs root, `ip`, and `nats-server` for the second. Exits with 1 when a stream did not end as it should.
 */

import { processTerminal } from "../../router/terminal.ts";
import { whyNoHosts } from "./network.ts";
import { FAULTS, type FaultTimes, WORKERS } from "./faults.ts";
import { type Found, Scene } from "./scene.ts";
import { type LoadResult, StreamLoad } from "./stream_load.ts";

const STREAMS = 3;

interface Row extends FaultTimes {
  readonly what: string;
  readonly load: LoadResult;
}

async function play(found: Found, say: (line: string) => void): Promise<readonly Row[]> {
  await using scene = await Scene.open(found);
  const startedMs = performance.now();
  scene.startRouter("--min-workers", String(WORKERS - 1));
  for (let i = 0; i < WORKERS; i++) await scene.addWorker();
  await scene.whole(WORKERS);
  say(`${found}: ${WORKERS} workers serve after ${(performance.now() - startedMs).toFixed(0)} ms`);
  const rows: Row[] = [];
  for (const fault of FAULTS) {
    if (fault.only !== undefined && fault.only !== found) continue;
    const load = new StreamLoad(scene.url, STREAMS);
    await load.more(STREAMS);
    const startedMs = performance.now();
    const times = await fault.play(scene);
    const endedMs = performance.now();
    await load.more(STREAMS);
    const row = { what: fault.what, ...times, load: await load.stop(startedMs, endedMs) };
    rows.push(row);
    say(line(found, row));
  }
  return rows;
}

function line(found: Found, { what, note, servingMs, wholeMs, load }: Row): string {
  const ms = (value: number | undefined) => value?.toFixed(0) ?? "–";
  const { ended, equal, failed, tokenMs, longestPauseMs } = load;
  const name = note === undefined ? what : `${what} (${note})`;
  const times = [servingMs, wholeMs].map(ms);
  const pauses = [tokenMs, longestPauseMs].map(ms);
  return `| ${[found, name, ...times, ended, equal, failed.length, ...pauses].join(" | ")} |`;
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
    "| found by | fault | serving again after ms | all three again after ms | streams | equal | failed | ms a token | longest pause ms |",
  );
  terminal.line("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  const failures: string[] = [];
  for (const found of asked) {
    const rows = await play(found, (text) => terminal.line(text));
    failures.push(...rows.flatMap(({ what, load }) => load.failed.map((why) => `${found}: ${what}: ${why}`)));
  }
  for (const failure of failures) terminal.error(failure);
  Deno.exit(failures.length === 0 ? 0 : 1);
}
