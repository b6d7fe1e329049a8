/**
 * Mixed load on a whole service for as long as asked, then SIGTERM in the middle of it: the memory of router and workers
 * over time, the answers by kind and status, and whether anything is left.
 * `deno run -A tests/e2e/soak.ts [MINUTES] [further flags of serve]` prints the table; it exits with 1 when a promise broke.
 */

import { childrenOf, isRunning } from "../support/processes.ts";
import { serveProcess } from "../support/serve_process.ts";

const CLIENTS = 3;
const SAMPLE_MS = 10_000;
/** Memory settles first: caches fill, code is compiled. */
const SETTLING = 1 / 3;
const WORDS = "the sea was calm and the harbour lay in fog while old men told of ships gone north".split(" ");

interface Sample {
  readonly minutes: number;
  /** Resident memory in MiB, of the router, then of its workers. */
  readonly mib: readonly number[];
}

function text(words: number): string {
  return Array.from({ length: words }, () => WORDS[Math.floor(Math.random() * WORDS.length)]).join(" ");
}

const chat = (words: number, fields: Readonly<Record<string, unknown>>) => ({
  messages: [{ role: "user", content: text(words) }],
  max_tokens: 24,
  ignore_eos: true,
  stream: Math.random() < 0.5,
  cache_salt: String(Math.random()),
  ...fields,
});

/** What clients do, by name: a path, a body, and after how long they leave. */
const DEEDS: Readonly<Record<string, () => { path: string; body: unknown; leaveMs?: number }>> = {
  short: () => ({ path: "/v1/chat/completions", body: chat(15, {}) }),
  long: () => ({ path: "/v1/chat/completions", body: chat(400, {}) }),
  sparse: () => ({
    path: "/v1/chat/completions",
    body: chat(150, { attention: { mode: "sparse", budget: 32, correction: "audit" } }),
  }),
  logprobs: () => ({ path: "/v1/chat/completions", body: chat(40, { logprobs: true, top_logprobs: 5 }) }),
  choices: () => ({ path: "/v1/completions", body: { prompt: text(10), n: 4, max_tokens: 8, ignore_eos: true } }),
  abort: () => ({ path: "/v1/chat/completions", body: chat(50, { max_tokens: 200 }), leaveMs: 2000 * Math.random() }),
  tokenize: () => ({ path: "/tokenize", body: { prompt: text(2000), return_token_strs: true } }),
  bad: () => ({ path: "/v1/chat/completions", body: { messages: "x" } }),
};

/** @returns what came of it: a status, `left` by the client, or `refused` without an answer */
async function act(origin: string, counts: Map<string, number>): Promise<string> {
  const names = Object.keys(DEEDS);
  const name = names[Math.floor(Math.random() * names.length)] ?? "short";
  const { path, body, leaveMs } = DEEDS[name]?.() ?? { path: "/", body: {} };
  const signal = leaveMs === undefined ? undefined : AbortSignal.timeout(leaveMs);
  let outcome: string;
  try {
    const response = await fetch(origin + path, {
      method: "POST",
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
    const answer = await response.text();
    const isWhole = !answer.startsWith("data:") && !answer.startsWith(":") || answer.trimEnd().endsWith("data: [DONE]");
    outcome = isWhole ? String(response.status) : `${response.status}, cut`;
  } catch (error) {
    outcome = error instanceof DOMException ? "left" : "refused";
  }
  counts.set(`${name} ${outcome}`, (counts.get(`${name} ${outcome}`) ?? 0) + 1);
  return outcome;
}

async function residentMib(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024);
}

async function soak(minutes: number, flags: readonly string[]): Promise<boolean> {
  const { child, origin } = await serveProcess(flags);
  const [startMs, counts, samples] = [performance.now(), new Map<string, number>(), [] as Sample[]];
  const workers = await childrenOf(child.pid);
  let [isEnding, refusals] = [false, 0];
  const clients = Array.from({ length: CLIENTS }, async () => {
    // A service that was told to end answers with 503 at first, and then not at all.
    while (!isEnding) await act(origin, counts);
    while (await act(origin, counts) !== "refused");
  });
  while (performance.now() - startMs < minutes * 60_000) {
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    const mib = await Promise.all([child.pid, ...workers].map(residentMib));
    samples.push({ minutes: (performance.now() - startMs) / 60_000, mib });
  }
  const termMs = performance.now();
  refusals = [...counts].reduce((sum, [outcome, count]) => outcome.endsWith("refused") ? sum + count : sum, 0);
  isEnding = true;
  child.kill("SIGTERM");
  const { code } = await child.status;
  const drainMs = performance.now() - termMs;
  await Promise.all(clients);
  const left = workers.filter(isRunning);
  report({ samples, counts });
  print(`SIGTERM under load: exit ${code} after ${(drainMs / 1000).toFixed(1)} s, ${left.length} processes left`);
  const failed = [...counts.keys()].some((outcome) => /\b5\d\d|cut/.test(outcome) && !/\b503$/.test(outcome));
  return code === 0 && left.length === 0 && !failed && refusals === 0;
}

function report(
  { samples, counts }: { readonly samples: readonly Sample[]; readonly counts: Map<string, number> },
): void {
  const settled = samples.slice(Math.floor(samples.length * SETTLING));
  print("| process | first MiB | last MiB | most MiB | slope MiB/min, first third left out |\n|---|---|---|---|---|");
  for (const process of samples[0]?.mib.keys() ?? []) {
    const mib = samples.map((sample) => sample.mib[process] ?? NaN);
    const rise = slope(settled.map((sample) => [sample.minutes, sample.mib[process] ?? NaN] as const));
    const name = process === 0 ? "router" : `worker ${process - 1}`;
    print(`| ${name} | ${mib[0]} | ${mib.at(-1)} | ${Math.max(...mib)} | ${rise.toFixed(2)} |`);
  }
  print([...counts].sort().map(([outcome, count]) => `${outcome}: ${count}`).join("\n"));
}

/** Least squares through points (x, y). @returns y for each x */
function slope(points: readonly (readonly [number, number])[]): number {
  const mean = (axis: 0 | 1) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const spread = points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
  return points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0) / spread;
}

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

if (import.meta.main) {
  const [minutes = "30", ...flags] = Deno.args;
  if (!(Number(minutes) > 0)) throw new Error(`Cannot soak: MINUTES must be above 0, given ${minutes}`);
  Deno.exit(await soak(Number(minutes), flags) ? 0 : 1);
}
