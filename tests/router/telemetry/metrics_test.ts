/** What requests and steps do to the metrics. */

import assert from "node:assert/strict";
import type { GroupState } from "../../../router/group/group.ts";
import { BUCKETS, METRIC_NAMES, ServiceMetrics } from "../../../router/telemetry/metrics.ts";
import { MetricsRegistry } from "../../../router/telemetry/metrics_registry.ts";
import type { SchedulerStats } from "../../../router/scheduling/scheduler_observer.ts";
import { finishedRecord, USAGE } from "../../support/request_records.ts";

const STATS: SchedulerStats = {
  running: 2,
  waiting: 1,
  pages: { total: 40, used: 10, cached: 5, free: 25 },
  prefix: { queryTokens: 300, hitTokens: 128 },
  preemptions: 4,
  replays: 0,
  steps: 9,
  tokens: { prefilled: 172, generated: 33 },
};

/** Lines of a scrape without comments, by everything before the value. */
function scrape(registry: MetricsRegistry): Map<string, string> {
  const lines = registry.text().split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), line.slice(line.lastIndexOf(" ") + 1)]));
}

function setUp(state: GroupState = { kind: "loading", progress: 0 }, workersUp: readonly boolean[] = [false]) {
  const registry = new MetricsRegistry({});
  const metrics = new ServiceMetrics(registry, {
    groups: () => [{ scheduler: STATS, state, workersUp }],
  });
  return { metrics, values: () => scrape(registry) };
}

Deno.test("ServiceMetrics.record() counts a finished request in tokens, seconds and rows", () => {
  const { metrics, values } = setUp();
  metrics.record(finishedRecord());
  const read = values();
  const expected: Record<string, number> = {
    'tidepool_request_success_total{finished_reason="stop"}': 1,
    ["tidepool_prompt_tokens_total"]: 100,
    ["tidepool_sse_keepalives_total"]: 3,
    'tidepool_kv_rows_read_total{mode="sparse"}': 3600,
    'tidepool_e2e_request_latency_seconds_sum{operation="chat"}': 4.5,
    'tidepool_e2e_request_latency_seconds_bucket{operation="chat",le="2.56"}': 0,
    'tidepool_e2e_request_latency_seconds_bucket{operation="chat",le="5.12"}': 1,
    'tidepool_time_to_first_token_seconds_sum{operation="chat"}': 2.5,
    'tidepool_request_time_per_output_token_seconds_sum{operation="chat"}': 0.5,
    ["tidepool_request_queue_time_seconds_sum"]: 0.25,
    ["tidepool_request_prefill_time_seconds_sum"]: 2,
    ["tidepool_request_decode_time_seconds_sum"]: 2,
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(Number(read.get(name)), value, name);
});

Deno.test("ServiceMetrics.corrections counts what corrections did and audits found, by mode", () => {
  const { metrics, values } = setUp();
  const report = { isLast: true, rows: 5, checked: 4, agreed: 3, divergence: 0.25, measured: 4, dropped: 1 } as const;
  metrics.corrections.record({ ...report, mode: "lossless" });
  metrics.corrections.record({ ...report, mode: "lossless" });
  metrics.corrections.record({
    ...report,
    mode: "refresh",
    checked: 0,
    agreed: 0,
    divergence: 0,
    measured: 0,
    dropped: 0,
  });
  const read = values();
  const expected: Record<string, readonly [lossless: number, refresh: number]> = {
    corrections: [2, 1],
    ["corrected_rows"]: [10, 5],
    ["dropped_drafts"]: [2, 0],
    ["audit_tokens_checked"]: [8, 0],
    ["audit_tokens_agreed"]: [6, 0],
    ["audit_tokens_measured"]: [8, 0],
    ["audit_kl_nats"]: [0.5, 0],
  };
  for (const [name, [lossless, refresh]] of Object.entries(expected)) {
    assert.equal(Number(read.get(`tidepool_${name}_total{mode="lossless"}`)), lossless, name);
    assert.equal(Number(read.get(`tidepool_${name}_total{mode="refresh"}`) ?? 0), refresh, name);
  }
});

Deno.test("ServiceMetrics.record() tells refusals, failures and disconnects apart", () => {
  const { metrics, values } = setUp();
  const none = { accepted: undefined, admittedAt: undefined, queueMs: undefined, firstTokenAt: undefined };
  metrics.record(finishedRecord({ ...none, outcome: { kind: "failed", code: "queue_full", status: 429 } }));
  metrics.record(finishedRecord({ outcome: { kind: "disconnected", phase: "decode" } }));
  const read = values();
  assert.equal(read.get('tidepool_request_failure_total{code="queue_full"}'), "1");
  assert.equal(read.get('tidepool_client_disconnects_total{phase="decode"}'), "1");
  assert.equal(read.get('tidepool_e2e_request_latency_seconds_count{operation="chat",error_type="queue_full"}'), "1");
  assert.equal(read.get("tidepool_request_queue_time_seconds_count"), "1");
  // Only successful requests say how long a token takes.
  assert.ok(![...read.keys()].some((name) => name.startsWith("tidepool_request_time_per_output_token_seconds_count")));
});

Deno.test("ServiceMetrics.record() counts the time of a token as the reader of one of several choices waits for it", () => {
  const { metrics, values } = setUp();
  const usage = { ...USAGE, completionTokens: 10 };
  metrics.record(finishedRecord({ outcome: { kind: "finished", reasons: ["stop", "length"], usage } }));
  const read = values();
  assert.equal(read.get('tidepool_request_time_per_output_token_seconds_sum{operation="chat"}'), "0.5");
  assert.equal(read.get('tidepool_kv_rows_read_total{mode="sparse"}'), "7200");
});

Deno.test("ServiceMetrics.step() splits the round trip into encode, wait and wire", () => {
  const { metrics, values } = setUp();
  const span = {
    sequence: 1,
    from: 0,
    tokens: new Uint32Array(6),
    logits: "last",
    newPages: new Uint32Array(),
  } as const;
  metrics.step({
    step: { index: 1, open: [], release: [], spans: [{ ...span, kind: "prefill" }], deadlineMs: 1 },
    result: { index: 1, spans: [], timing: { encodeMs: 10, waitMs: 20, totalMs: 31 } },
    predictedMs: 30,
    roundTripMs: 35,
  }, 0);
  const read = values();
  assert.equal(read.get('tidepool_step_seconds_sum{group="0"}'), "0.035");
  assert.equal(read.get('tidepool_step_rows_sum{group="0"}'), "6");
  const phases = ["encode", "wait", "wire"].map((phase) =>
    read.get(`tidepool_step_phase_seconds_total{group="0",phase="${phase}"}`)
  );
  assert.deepEqual(phases, ["0.01", "0.02", "0.004"]);
});

Deno.test("ServiceMetrics.step() counts seconds and bytes of exchanges, where there are any", () => {
  const { metrics, values } = setUp();
  const step = { index: 1, open: [], release: [], spans: [], deadlineMs: 1 };
  const timing = { encodeMs: 10, waitMs: 20, totalMs: 31 };
  const exchange = {
    ms: { queries: 2, keys: 0, states: 4, rows: 0, candidates: 8, replicas: 1 },
    readMs: 16,
    bytes: { queries: 100, keys: 0, states: 200, rows: 0, candidates: 400, replicas: 800 },
    counts: { queries: 1, keys: 0, states: 2, rows: 0, candidates: 1, replicas: 1 },
  };
  const report = { step, predictedMs: 30, roundTripMs: 35 };
  metrics.step({ ...report, result: { index: 1, spans: [], timing } }, 1);
  const named = (read: Map<string, string>) => [...read].filter(([name]) => /exchange_\w+_total\{/.test(name));
  assert.deepEqual(named(values()), []);
  metrics.step({ ...report, result: { index: 2, spans: [], timing: { ...timing, exchange } } }, 1);
  assert.deepEqual(named(values()), [
    ['tidepool_exchange_seconds_total{group="1",kind="queries"}', "0.002"],
    ['tidepool_exchange_seconds_total{group="1",kind="states"}', "0.004"],
    ['tidepool_exchange_seconds_total{group="1",kind="candidates"}', "0.008"],
    ['tidepool_exchange_seconds_total{group="1",kind="replicas"}', "0.001"],
    ['tidepool_exchange_seconds_total{group="1",kind="read"}', "0.016"],
    ['tidepool_exchange_bytes_total{group="1",kind="queries"}', "100"],
    ['tidepool_exchange_bytes_total{group="1",kind="states"}', "200"],
    ['tidepool_exchange_bytes_total{group="1",kind="candidates"}', "400"],
    ['tidepool_exchange_bytes_total{group="1",kind="replicas"}', "800"],
  ]);
  metrics.step({
    ...report,
    result: { index: 3, spans: [], timing: { ...timing, replicas: { chosen: 64, missing: 8 } } },
  }, 1);
  const rows = ["found", "sent"].map((outcome) =>
    values().get(`tidepool_replica_rows_total{group="1",outcome="${outcome}"}`)
  );
  assert.deepEqual(rows, ["56", "8"]);
});

Deno.test("ServiceMetrics reads scheduler and group when it is scraped", () => {
  const read = setUp().values();
  assert.equal(read.get('tidepool_num_requests_running{group="0"}'), "2");
  assert.equal(read.get('tidepool_num_requests_waiting{group="0"}'), "1");
  assert.equal(read.get('tidepool_kv_cache_usage_perc{group="0"}'), "0.25");
  assert.equal(read.get('tidepool_prefix_cache_queries_total{group="0"}'), "300");
  assert.equal(read.get('tidepool_prefix_cache_hits_total{group="0"}'), "128");
  assert.equal(read.get('tidepool_generation_tokens_total{group="0"}'), "33");
  assert.equal(read.get('tidepool_num_preemptions_total{group="0"}'), "4");
  assert.equal(read.get('tidepool_worker_up{group="0",worker="0"}'), "0");
  assert.equal(read.get('tidepool_group_epoch{group="0"}'), undefined);
  const ready = setUp({ kind: "ready", epoch: 3 } as GroupState, [true, false, true]).values();
  const up = ["0", "1", "2"].map((worker) => ready.get(`tidepool_worker_up{group="0",worker="${worker}"}`));
  assert.deepEqual(up, ["1", "0", "1"]);
  assert.equal(ready.get('tidepool_group_epoch{group="0"}'), "3");
});

Deno.test("BUCKETS begin with the boundaries of the GenAI conventions and ascend", () => {
  assert.deepEqual(BUCKETS.requestSeconds.slice(0, 14), Array.from({ length: 14 }, (_, i) => 2 ** i / 100));
  const first = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
  assert.deepEqual(BUCKETS.firstTokenSeconds.slice(0, 16), first);
  assert.deepEqual(BUCKETS.outputTokenSeconds, [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]);
  for (const bounds of Object.values(BUCKETS)) {
    assert.ok(bounds.every((bound, i) => bound > (bounds[i - 1] ?? 0)), String(bounds));
  }
  assert.ok(Object.values(METRIC_NAMES).every((name) => name.endsWith("_seconds")));
});
