/**
 * Every fault at every point of a request's life, in a whole service of two workers: what becomes of the request, and how
 * long the group takes to notice and to be whole again. `deno run -A tests/e2e/fault_matrix.ts` prints the table.
 */

import { freshSecret, Launcher, type WorkerProcess } from "../../router/host/worker_process.ts";
import { Scheduler } from "../../router/scheduling/scheduler.ts";
import { PATIENCE } from "../../router/group/worker_client.ts";
import { fixedMembership } from "../../router/group/membership/membership.ts";
import { WorkerGroup } from "../../router/group/worker_group.ts";
import type { WorkerHost } from "../../router/group/worker_source.ts";
import { FaultyProxy } from "../support/faulty_proxy.ts";
import { type Fault, FAULT_LINE, type FaultPlan, FAULTS, type Point, POINTS } from "../support/faulty_worker.ts";
import { SseReader } from "../support/sse_reader.ts";
import { TestService } from "../support/test_service.ts";
import { type StepTimes, timedGroup } from "../support/timed_group.ts";
import { until } from "../support/until.ts";
import { lostGroupRows } from "./lost_group.ts";

/** What became of one fault. */
export interface Outcome {
  readonly fault: Fault;
  readonly point: Point;
  /** Tokens that the client got, and the code of the error if it got one. */
  readonly tokens: number;
  readonly error: string | undefined;
  /** Whether the stream said itself that it is over. */
  readonly done: boolean;
  /** Whether the text is that of an undisturbed run. */
  readonly same: boolean;
  /** Within which a worker that hangs had to answer. */
  readonly stepMs: number;
  /** From the fault to the line in the log. */
  readonly noticedMs: number;
  /** From the fault to a group that is whole and ready. */
  readonly readyMs: number;
  /** Lines in the log about it. */
  readonly news: readonly string[];
  /** Pages that are held after all. */
  readonly heldPages: number;
}

/** Tokens asked for. */
export const TOKENS = 24;

/**
 * Once a fault is due, no step and no progress in loading may take longer than this, or, where the machine is busy, than so many times the
 * longest step of a run that nothing disturbed; in service it is five times what the step should take, and 5 s.
 */
const [LEAST_STEP_MS, STEP_FACTOR] = [3000, 4];

/** Until then: kernels are compiled. */
const PATIENT_MS = 120_000;

/** Long enough to be split over two workers, and for sparse attention. */
const PROMPT = Array.from({ length: 300 }, (_, i) => 10 + (7 * i) % 500);

const ENTRY = new URL("../support/faulty_worker.ts", import.meta.url);
const [READY_MS, WHOLE_MS] = [180_000, 600_000];

/** A service of two workers that fail on demand; `close` must be called. */
class FaultStage {
  readonly #directory: string;
  readonly #way: Way;
  readonly #group: WorkerGroup;
  readonly #scheduler: Scheduler;
  readonly #service: Promise<TestService>;
  readonly #hosts: { readonly process: WorkerProcess; readonly proxy: FaultyProxy }[] = [];
  readonly #log: { readonly atMs: number; readonly line: string }[] = [];
  #armed: (FaultPlan & { readonly worker: number }) | undefined;
  /** Of a run that nothing disturbed. */
  #answer: string | undefined;
  #stepMs = PATIENT_MS;
  #longestMs = 0;
  #failedAtMs = Infinity;
  #readyAtMs = -Infinity;

  constructor(directory: string, way: Way) {
    this.#directory = directory;
    this.#way = way;
    this.#group = new WorkerGroup({
      membership: fixedMembership([0, 1].map((index) => ({
        source: { start: (signal) => this.#start(index, signal), returns: false },
        load: { model: { random: "tiny" }, kvTokens: 1024, replicas: true } as const,
      }))),
      modelId: "tiny",
      sparseExchange: way === "rows" ? "rows" : "states",
      log: (line) => this.#hear(line),
      patience: Object.defineProperty({ ...PATIENCE }, "loadStallMs", { get: () => this.#stepMs }),
      // A lost worker shows a moment after the link to it; on a busy machine that may take a while.
      restarts: { firstDelayMs: 300, longestDelayMs: 300, failures: 1000, windowMs: 60_000 },
    });
    this.#group.onState((state) => {
      if (state.kind === "ready") this.#readyAtMs = performance.now();
    });
    // The whole prompt in one chunk, on a slow machine too: only long ones are split.
    const times: StepTimes = {
      deadlineMs: () => this.#stepMs,
      onTook: (ms) => {
        if (this.#answer === undefined) this.#longestMs = Math.max(this.#longestMs, ms);
      },
    };
    this.#scheduler = new Scheduler(timedGroup(this.#group, times), {
      sharedPrefillMs: WHOLE_MS,
      alonePrefillMs: WHOLE_MS,
    });
    this.#service = TestService.open({
      generator: this.#scheduler,
      selections: this.#scheduler.selections,
      model: () => this.#group.state.kind === "ready" ? this.#group.state.model : undefined,
      state: () => ({
        groups: [{ state: this.#group.state, members: this.#group.members, scheduler: this.#scheduler.stats() }],
        draining: false,
      }),
    });
  }

  async try(plan: FaultPlan): Promise<Outcome> {
    await this.#whole(0);
    this.#answer ??= await this.#undisturbed();
    // A worker that is started again makes its kernels again.
    this.#stepMs = Math.max(LEAST_STEP_MS, STEP_FACTOR * this.#longestMs);
    const lines = this.#log.length;
    this.#failedAtMs = Infinity;
    // The lead samples.
    const worker = plan.point === "sampling" ? 0 : 1;
    this.#armed = { ...plan, worker };
    const path = `${this.#directory}/plan`;
    await Deno.writeTextFile(path, JSON.stringify(plan));
    // A worker must not read half of it, and the stream is not to go on meanwhile.
    const arm = () => Deno.renameSync(path, this.#planOf(worker));
    // The sequence before may still have to be released.
    if (plan.point !== "release") arm();
    const stream = await this.#ask(`${plan.fault} ${plan.point}`);
    if (plan.point === "load") {
      await stream.until(() => stream.tokenTimes.length >= 3);
      // The next one at this place fails while it loads.
      Deno.kill(this.#hosts[worker]?.process.pid ?? NaN, "SIGKILL");
    }
    if (plan.point === "release") {
      await stream.until(() => stream.tokenTimes.length >= 1);
      arm();
    }
    await stream.finish();
    await until(() => this.#failedAtMs < Infinity);
    await this.#whole(this.#failedAtMs);
    await until(() => this.#scheduler.stats().pages.used === 0);
    const news = this.#log.slice(lines).filter(({ line }) => / is lost: |formed again/.test(line));
    const noticedAtMs = news.find(({ atMs }) => atMs >= this.#failedAtMs)?.atMs ?? Infinity;
    return {
      ...plan,
      tokens: stream.usage?.completion_tokens ?? stream.tokenTimes.length,
      error: stream.error?.code ?? undefined,
      done: stream.done,
      same: stream.text() === this.#answer,
      stepMs: this.#stepMs,
      noticedMs: noticedAtMs - this.#failedAtMs,
      readyMs: this.#readyAtMs - this.#failedAtMs,
      news: news.map(({ line }) => line),
      heldPages: this.#scheduler.stats().pages.used,
    };
  }

  async close(): Promise<void> {
    const scheduler = this.#scheduler.close();
    await this.#group.close();
    await scheduler;
    (await this.#service)[Symbol.dispose]();
    await Deno.remove(this.#directory, { recursive: true });
  }

  async #undisturbed(): Promise<string> {
    const stream = await this.#ask("undisturbed");
    await stream.finish();
    if (!stream.done || stream.error !== undefined) throw new Error(`Cannot compare answers: ${stream.error?.code}`);
    await until(() => this.#scheduler.stats().pages.used === 0);
    return stream.text();
  }

  async #ask(salt: string): Promise<SseReader> {
    const service = await this.#service;
    const response = await service.post("/v1/completions", {
      prompt: PROMPT,
      "max_tokens": TOKENS,
      "ignore_eos": true,
      "cache_salt": salt,
      temperature: 0,
      stream: true,
      "stream_options": { "include_usage": true },
      // Drafts are decoded sparsely; what is said of them must be what dense decoding says, faults or not.
      attention: { mode: "sparse", budget: 64, correction: "lossless" },
    });
    if (response.status === 200 && response.body !== null) return new SseReader(response.body);
    throw new Error(`Cannot begin: status ${response.status}, ${await response.text()}`);
  }

  /** Waits until the group is ready again after a moment. */
  async #whole(afterMs: number): Promise<void> {
    await until(() => this.#group.state.kind === "ready" && this.#readyAtMs > afterMs, READY_MS);
  }

  async #start(index: number, signal: AbortSignal): Promise<WorkerHost> {
    const launcher = new Launcher({
      entry: ENTRY,
      args: [`--plan=${this.#planOf(index)}`, ...(this.#way === "copies" ? ["--copies"] : [])],
      secret: SECRET,
      log: (line) => this.#hear(line),
    });
    const process = await launcher.launch(signal);
    const proxy = new FaultyProxy(process.address);
    this.#hosts[index] = { process, proxy };
    return proxy.host(process);
  }

  #hear(line: string): void {
    this.#log.push({ atMs: performance.now(), line });
    if (line !== FAULT_LINE || this.#armed === undefined) return;
    this.#failedAtMs = performance.now();
    const { fault, point, worker } = this.#armed;
    // Worker 1 dials worker 0, the router dials all.
    const [proxy, dialer] = isBetweenWorkers(point)
      ? [this.#hosts[0]?.proxy, "peer"] as const
      : [this.#hosts[worker]?.proxy, "router"] as const;
    if (fault === "cut") proxy?.cut(dialer);
    if (fault === "corrupt") proxy?.corrupt(dialer);
  }

  #planOf(index: number): string {
    return `${this.#directory}/plan${index}.json`;
  }
}

const SECRET = freshSecret();

/** Which connection is cut or corrupted: the one in use. */
function isBetweenWorkers(point: Point): boolean {
  return ["prefill", "keys travel", "select layer", "rows travel", "sparse layer"].includes(point);
}

/** Every fault at every point; an account that differs shows at select layers alone. */
export const PLANS: readonly FaultPlan[] = FAULTS.flatMap((fault) =>
  POINTS.filter((point) => fault !== "behind" || point === "select layer").map((point) => ({ fault, point }))
);

/** A service of its own for keys would take too long. */
const SAMPLED = POINTS.filter((point) => point !== "keys travel");
/** Every other point, every fault, and the death of a worker whose rows are on their way: what a sample of the matrix has to hold. */
export const SAMPLE: readonly FaultPlan[] = PLANS.filter(({ fault, point }) =>
  fault === "behind" || fault === FAULTS[SAMPLED.findIndex((sampled) => sampled === point) % (FAULTS.length - 1)] ||
  (fault === "kill" && point === "rows travel")
);

/** How workers reach what others hold: by copies of whole sequences, of selected rows, or by states. */
type Way = "rows" | "states" | "copies";

/** The one that leads past a point. */
const WAYS: Partial<Record<Point, Way>> = { "keys travel": "copies", "sparse layer": "states" };

/** Tries plans, one after the other. */
export async function* faultMatrix(chosen: readonly FaultPlan[] = PLANS): AsyncGenerator<Outcome> {
  for (const way of ["rows", "states", "copies"] as const) {
    const plans = chosen.filter(({ point }) => (WAYS[point] ?? "rows") === way);
    if (plans.length === 0) continue;
    const stage = new FaultStage(await Deno.makeTempDir({ prefix: "tidepool-" }), way);
    try {
      for (const plan of plans) yield await stage.try(plan);
    } finally {
      await stage.close();
    }
  }
}

/** What the client saw, in words. */
export function describeOutcome({ error, done, same, tokens }: Outcome): string {
  if (error !== undefined) return `error event ${error} after ${tokens} tokens`;
  if (!done) return `ended without a word after ${tokens} tokens`;
  if (tokens !== TOKENS) return `ended after ${tokens} tokens`;
  return same ? "answered to the end" : "answered otherwise than undisturbed";
}

if (import.meta.main) {
  const lines = [
    "| fault | at | the client's stream | noticed after ms | group whole again after ms |",
    "| --- | --- | --- | --- | --- |",
  ];
  for await (const outcome of faultMatrix()) {
    const cells = [outcome.fault, outcome.point, describeOutcome(outcome)];
    const times = [outcome.noticedMs, outcome.readyMs].map((ms) => ms.toFixed(0));
    lines.push(`| ${[...cells, ...times].join(" | ")} |`);
  }
  for await (const cells of lostGroupRows()) lines.push(`| ${cells.join(" | ")} |`);
  Deno.stdout.writeSync(new TextEncoder().encode(`${lines.join("\n")}\n`));
}
