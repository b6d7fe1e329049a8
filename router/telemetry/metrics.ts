/**
 * What a service counts: requests, tokens, steps, memory. Names follow vLLM's, with our prefix, so that existing
 * dashboards need little change. Knows records, steps and statistics; never sees a prompt or an answer.
 */

import type { GroupState } from "../group/group.ts";
import { CorrectionMetrics } from "./correction_metrics.ts";
import type { Counter, Histogram, MetricsRegistry, Reading } from "./metrics_registry.ts";
import type { RequestRecord } from "./request_record.ts";
import type { SchedulerStats, StepReport } from "../scheduling/scheduler_observer.ts";

/** Names that the GenAI conventions know too. */
export const METRIC_NAMES = {
  requestSeconds: "tidepool_e2e_request_latency_seconds",
  firstTokenSeconds: "tidepool_time_to_first_token_seconds",
  outputTokenSeconds: "tidepool_request_time_per_output_token_seconds",
} as const;

/** Upper bounds in seconds; the GenAI conventions' lists, drawn out upward because a long prefill takes minutes. */
export const BUCKETS = {
  requestSeconds: [
    ...[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
    ...[163.84, 327.68, 655.36, 1310.72],
  ],
  firstTokenSeconds: [
    ...[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
    ...[20, 40, 80, 160, 640, 2560],
  ],
  outputTokenSeconds: [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5],
  stepSeconds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  stepRows: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
} as const;

/** What a group is asked for. */
export interface GroupReadings {
  readonly scheduler: SchedulerStats;
  readonly state: GroupState;
  /** Of all workers the group is to have, in their order: whether each is there. */
  readonly workersUp: readonly boolean[];
}

/** Where the values come from that are read on demand. */
export interface MetricsSources {
  /** In their order, which numbers them. */
  groups(): readonly GroupReadings[];
}

/** All instruments of a service. */
export class ServiceMetrics {
  readonly corrections: CorrectionMetrics;
  readonly #success: Counter;
  readonly #failure: Counter;
  readonly #disconnects: Counter;
  readonly #keepAlives: Counter;
  readonly #promptTokens: Counter;
  readonly #rowsRead: Counter;
  readonly #request: Histogram;
  readonly #firstToken: Histogram;
  readonly #outputToken: Histogram;
  readonly #queue: Histogram;
  readonly #prefill: Histogram;
  readonly #decode: Histogram;
  readonly #step: Histogram;
  readonly #stepRows: Histogram;
  readonly #stepPhases: Counter;
  readonly #exchangeSeconds: Counter;
  readonly #exchangeBytes: Counter;
  readonly #replicaRows: Counter;

  constructor(registry: MetricsRegistry, sources: MetricsSources) {
    const counter = (name: string, help: string) => registry.counter(`tidepool_${name}`, help);
    const seconds = (name: string, help: string, buckets: readonly number[] = BUCKETS.requestSeconds) =>
      registry.histogram(name, help, buckets);
    this.#success = counter("request_success_total", "Requests answered, by finish reason");
    this.#failure = counter("request_failure_total", "Requests refused or failed, by error code");
    this.#disconnects = counter("client_disconnects_total", "Clients that left before the end, by phase");
    this.#keepAlives = counter("sse_keepalives_total", "Keep-alive comments written");
    this.#promptTokens = counter("prompt_tokens_total", "Prompt tokens of accepted requests");
    this.#rowsRead = counter("kv_rows_read_total", "KV rows one KV head read while decoding, over all layers");
    this.#request = seconds(METRIC_NAMES.requestSeconds, "From a request to the end of its answer");
    this.#firstToken = seconds(METRIC_NAMES.firstTokenSeconds, "To the first token", BUCKETS.firstTokenSeconds);
    this.#outputToken = seconds(METRIC_NAMES.outputTokenSeconds, "Per later token", BUCKETS.outputTokenSeconds);
    this.#queue = seconds("tidepool_request_queue_time_seconds", "Waiting for pages");
    this.#prefill = seconds("tidepool_request_prefill_time_seconds", "From admission to the first token");
    this.#decode = seconds("tidepool_request_decode_time_seconds", "From the first token to the end");
    this.#step = seconds("tidepool_step_seconds", "A step of the group, round trip", BUCKETS.stepSeconds);
    this.#stepRows = registry.histogram("tidepool_step_rows", "Rows computed in a step", BUCKETS.stepRows);
    this.#stepPhases = counter("step_phase_seconds_total", "Where the time of steps went: encode, wait, wire");
    this.#exchangeSeconds = counter("exchange_seconds_total", "Time the lead worker spent on exchanges, by kind");
    this.#exchangeBytes = counter("exchange_bytes_total", "Tensor bytes the lead worker sent to others, by kind");
    this.#replicaRows = counter(
      "replica_rows_total",
      "Rows that sparse layers of several workers read, found in a store of replicas or sent by their owners",
    );
    this.corrections = new CorrectionMetrics(registry);
    observeSchedulers(registry, sources);
    observeGroups(registry, sources);
  }

  /** A request has ended. */
  record(record: RequestRecord): void {
    const { operation, accepted, outcome, receivedAt, admittedAt, firstTokenAt, endedAt } = record;
    const labels = { operation };
    this.#keepAlives.add(record.keepAlives);
    this.#promptTokens.add(accepted?.promptTokens ?? 0);
    const errorType = this.#countOutcome(outcome);
    this.#request.observe(
      (endedAt - receivedAt) / 1000,
      errorType === undefined ? labels : { ...labels, error_type: errorType },
    );
    if (record.queueMs !== undefined) this.#queue.observe(record.queueMs / 1000);
    if (firstTokenAt === undefined) return;
    this.#firstToken.observe((firstTokenAt - receivedAt) / 1000, labels);
    if (admittedAt !== undefined) this.#prefill.observe((firstTokenAt - admittedAt) / 1000);
    this.#decode.observe((endedAt - firstTokenAt) / 1000);
    if (outcome.kind !== "finished") return;
    const { reasons: { length: choices }, usage: { completionTokens, attention } } = outcome;
    // The first token of each choice is drawn after its prompt.
    const decoded = Math.max(0, completionTokens - choices);
    this.#rowsRead.add(attention.rowsReadPerToken * decoded, { mode: attention.mode });
    // Choices decode beside each other: what counts is how long the reader of one waits.
    if (decoded > 0) this.#outputToken.observe((endedAt - firstTokenAt) / 1000 / (decoded / choices), labels);
  }

  /** A step has run in a group. */
  step({ step, result: { timing }, roundTripMs }: StepReport, index: number): void {
    const group = String(index);
    this.#step.observe(roundTripMs / 1000, { group });
    this.#stepRows.observe(step.spans.reduce((rows, { tokens }) => rows + tokens.length, 0), { group });
    this.#stepPhases.add(timing.encodeMs / 1000, { group, phase: "encode" });
    this.#stepPhases.add(timing.waitMs / 1000, { group, phase: "wait" });
    this.#stepPhases.add((roundTripMs - timing.totalMs) / 1000, { group, phase: "wire" });
    if (timing.replicas !== undefined) {
      const { chosen, missing } = timing.replicas;
      this.#replicaRows.add(chosen - missing, { group, outcome: "found" });
      this.#replicaRows.add(missing, { group, outcome: "sent" });
    }
    if (timing.exchange === undefined) return;
    const { ms, readMs, bytes } = timing.exchange;
    for (const [kind, value] of Object.entries({ ...ms, read: readMs })) {
      this.#exchangeSeconds.add(value / 1000, { group, kind });
    }
    for (const [kind, value] of Object.entries(bytes)) this.#exchangeBytes.add(value, { group, kind });
  }

  /** @returns the error's type, if it is one */
  #countOutcome(outcome: RequestRecord["outcome"]): string | undefined {
    switch (outcome.kind) {
      case "finished":
        for (const reason of outcome.reasons) this.#success.add(1, { finished_reason: reason });
        return undefined;
      case "failed":
        this.#failure.add(1, { code: outcome.code });
        return outcome.code;
      case "disconnected":
        this.#disconnects.add(1, { phase: outcome.phase });
        return "client_disconnected";
    }
  }
}

/** Readings of each group, under its number. */
function ofEach(sources: MetricsSources, read: (group: GroupReadings) => readonly Reading[]): () => readonly Reading[] {
  return () =>
    sources.groups().flatMap((one, index) =>
      read(one).map(({ value, labels }) => ({ value, labels: { group: String(index), ...labels } }))
    );
}

function observeSchedulers(registry: MetricsRegistry, sources: MetricsSources): void {
  const observed = (kind: "counter" | "gauge", name: string, help: string, of: (stats: SchedulerStats) => number) =>
    registry.observed(kind, `tidepool_${name}`, {
      help,
      read: ofEach(sources, ({ scheduler }) => [{ value: of(scheduler) }]),
    });
  observed("gauge", "num_requests_running", "Sequences being computed", ({ running }) => running);
  observed("gauge", "num_requests_waiting", "Sequences waiting for pages", ({ waiting }) => waiting);
  observed(
    "gauge",
    "kv_cache_usage_perc",
    "KV pages held by sequences; 1 is all",
    ({ pages: { used, total } }) => total === 0 ? 0 : used / total,
  );
  registry.observed("gauge", "tidepool_kv_pages", {
    help: "KV pages by state: held by running sequences, by the prefix cache alone, or free",
    read: ofEach(
      sources,
      ({ scheduler: { pages: { used, cached, free } } }) =>
        Object.entries({ running: used, prefix: cached, free }).map(([state, value]) => ({ value, labels: { state } })),
    ),
  });
  observed("counter", "prefix_cache_queries_total", "Prompt tokens looked up", ({ prefix }) => prefix.queryTokens);
  observed("counter", "prefix_cache_hits_total", "Prompt tokens found", ({ prefix }) => prefix.hitTokens);
  observed("counter", "generation_tokens_total", "Tokens that clients got", ({ tokens }) => tokens.generated);
  observed(
    "counter",
    "prefilled_rows_total",
    "Rows prefilled, rebuilt ones included",
    ({ tokens }) => tokens.prefilled,
  );
  observed("counter", "num_preemptions_total", "Sequences sent back to the queue", ({ preemptions }) => preemptions);
  observed("counter", "replays_total", "Sequences rebuilt after a lost worker", ({ replays }) => replays);
}

function observeGroups(registry: MetricsRegistry, sources: MetricsSources): void {
  registry.observed("gauge", "tidepool_worker_up", {
    help: "Whether the worker is there and has loaded the model",
    read: ofEach(
      sources,
      ({ workersUp }) => workersUp.map((isUp, i) => ({ value: isUp ? 1 : 0, labels: { worker: String(i) } })),
    ),
  });
  registry.observed("gauge", "tidepool_group_ready", {
    help: "Whether the group is formed and runs steps",
    read: ofEach(sources, ({ state }) => [{ value: state.kind === "ready" ? 1 : 0 }]),
  });
  registry.observed("gauge", "tidepool_group_epoch", {
    help: "How often the group has formed; absent while it is not formed",
    read: ofEach(sources, ({ state }) => state.kind === "ready" ? [{ value: state.epoch }] : []),
  });
}
