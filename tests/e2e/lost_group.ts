/**
 * One of two groups is lost while both answer: what becomes of the streams, of those who ask meanwhile, and of the group. The
 * last rows of the fault matrix, and a test of the gate.
 */

import { LiveService } from "../support/live_service.ts";
import type { SseReader } from "../support/sse_reader.ts";

/** What is done to the worker of one group. */
export const GROUP_FAULTS = { kill: "SIGKILL", stop: "SIGSTOP" } as const;

/** What became of it. */
export interface LostGroup {
  readonly fault: keyof typeof GROUP_FAULTS;
  /** Two of each group. */
  readonly streams: readonly { readonly text: string; readonly error: string | undefined; readonly done: boolean }[];
  /** What the same requests give undisturbed. */
  readonly texts: readonly string[];
  /** Sequences that were computed again, and those of them that went on in the other group. */
  readonly replays: number;
  readonly moved: number;
  /** `/ready` answers that were not 200, of how many. */
  readonly unready: number;
  readonly looks: number;
  /** From the fault to the line in the log, and until both groups are ready. */
  readonly noticedMs: number;
  readonly wholeMs: number;
}

/** Tokens that each stream asks for. */
const TOKENS = 120;

/** What is asked at a time. */
const STREAMS = 4;

/** A service of two groups of one worker each. */
export function startGroups(): Promise<LiveService> {
  return LiveService.start({ groups: 2, random: "tiny", kvTokens: 2048 });
}

/** Tries a fault while two streams run in each group. */
export async function loseGroup(live: LiveService, fault: LostGroup["fault"]): Promise<LostGroup> {
  const texts = (await Promise.all((await openAll(live)).map((stream) => stream.finish()))).map((each) => each.text());
  const before = await countsOf(live);
  // Looked up before: meanwhile the streams would go on.
  const [pid = 0] = await live.workers();
  const streams = await openAll(live);
  for (const stream of streams) await stream.until(() => stream.tokenTimes.length >= 8);
  const lines = live.lines.length;
  Deno.kill(pid, GROUP_FAULTS[fault]);
  const failedAtMs = performance.now();
  const watched = watch(live, lines, failedAtMs);
  await Promise.all(streams.map((stream) => stream.finish()));
  const { noticedMs, wholeMs, unready, looks } = await watched;
  const after = await countsOf(live);
  return {
    fault,
    texts,
    streams: streams.map((stream) => ({
      text: stream.text(),
      error: stream.error?.code ?? undefined,
      done: stream.done,
    })),
    replays: after.replays - before.replays,
    moved: Math.max(...after.generated.map((tokens, group) => tokens - (before.generated[group] ?? 0))) / TOKENS - 2,
    unready,
    looks,
    noticedMs,
    wholeMs,
  };
}

function openAll(live: LiveService): Promise<SseReader[]> {
  return Promise.all(Array.from({ length: STREAMS }, (_, i) =>
    live.stream("/v1/completions", {
      prompt: Array.from({ length: 90 + i }, (_, at) => 10 + ((7 + i) * at) % 500),
      "max_tokens": TOKENS,
      "ignore_eos": true,
      seed: 3,
      // Nothing is found in the cache: the groups are equal.
      "cache_salt": crypto.randomUUID(),
      attention: { mode: "dense" },
    })));
}

async function countsOf(live: LiveService): Promise<{ replays: number; generated: readonly number[] }> {
  const generated = (await live.metrics()).matchAll(/^tidepool_generation_tokens_total\{.*\} (\S+)$/gm);
  return {
    replays: await live.metric("tidepool_replays_total"),
    generated: [...generated].map(([, tokens]) => Number(tokens)),
  };
}

/** Looks at the service until both groups are ready again. */
async function watch(
  live: LiveService,
  linesBefore: number,
  failedAtMs: number,
): Promise<Pick<LostGroup, "noticedMs" | "wholeMs" | "unready" | "looks">> {
  let [noticedMs, wholeMs, unready, looks] = [Infinity, Infinity, 0, 0];
  await live.until(async () => {
    const response = await fetch(`${live.origin}/ready`);
    const { groups } = await response.json();
    const nowMs = performance.now() - failedAtMs;
    looks++;
    if (response.status !== 200) unready++;
    if (live.lines.slice(linesBefore).some((line) => / is lost: /.test(line))) noticedMs = Math.min(noticedMs, nowMs);
    if (groups.every(({ state }: { state: string }) => state === "ready") && noticedMs < Infinity) wholeMs = nowMs;
    return wholeMs < Infinity;
  }, 60_000);
  return { noticedMs, wholeMs, unready, looks };
}

/** Rows of the fault matrix. */
export async function* lostGroupRows(): AsyncGenerator<readonly string[]> {
  await using live = await startGroups();
  for (const fault of ["kill", "stop"] as const) {
    const { streams, texts, noticedMs, wholeMs } = await loseGroup(live, fault);
    const equal = streams.filter(({ text, done }, i) => done && text === texts[i]).length;
    const told = equal === streams.length
      ? "answered to the end"
      : `${equal} of ${streams.length} answered as undisturbed`;
    yield [fault, "one group of two", told, noticedMs.toFixed(0), wholeMs.toFixed(0)];
  }
}
