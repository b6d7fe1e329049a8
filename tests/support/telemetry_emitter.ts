/** A program that traces one request with two steps and records metrics; `telemetry_test.ts` collects what it exports. */

import { RequestRecorder } from "../../router/telemetry/request_record.ts";
import { MetricsRegistry } from "../../router/telemetry/metrics_registry.ts";
import { ServiceMetrics } from "../../router/telemetry/metrics.ts";
import { beginStep, openTelemetryMirror, traceRequest, traceStep } from "../../router/telemetry/telemetry.ts";
import type { GenerationRequest } from "../../router/scheduling/generation.ts";
import type { Step } from "../../engine/span.ts";
import { RequestContext } from "../../router/access/request_context.ts";
import { NO_STATS } from "./no_stats.ts";
import { ACCEPTED, finishedRecord, ORIGIN, USAGE } from "./request_records.ts";

const registry = new MetricsRegistry({ "model_name": "tide-10m" }, openTelemetryMirror);
const metrics = new ServiceMetrics(registry, {
  groups: () => [{
    scheduler: {
      ...NO_STATS,
      running: 2,
      waiting: 1,
      pages: { total: 4, used: 1, cached: 0, free: 3 },
      tokens: { prefilled: 0, generated: 33 },
    },
    state: { kind: "loading", progress: 0 },
    workersUp: [false],
  }],
});
metrics.record(finishedRecord());
metrics.corrections.record({
  isLast: true,
  mode: "audit",
  rows: 4,
  checked: 3,
  agreed: 2,
  divergence: 0.5,
  measured: 2,
  dropped: 0,
});

const recorder = new RequestRecorder(traceRequest, []);
const rows = { sequence: 1, from: 0, tokens: new Uint32Array(6), logits: "last", newPages: new Uint32Array() } as const;
const step: Step = { index: 1, open: [], release: [], spans: [{ ...rows, kind: "prefill" }], deadlineMs: 1 };
const decode: Step = { ...step, index: 2, spans: [{ ...rows, kind: "decode", attention: "dense" }] };
const perExchange = { queries: 1, keys: 0, states: 2, rows: 3, candidates: 4, replicas: 5 };
const exchange = { ms: perExchange, readMs: 5, bytes: perExchange, counts: perExchange };
const timing = { encodeMs: 1, waitMs: 2, totalMs: 3, exchange };

const CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

function serve(): void {
  const context = new RequestContext(ORIGIN, new AbortController().signal);
  const observation = recorder.received({ operation: "chat", id: "chatcmpl-7", traceparent: CLIENT, context });
  observation.accepted(ACCEPTED);
  recorder.admitted({ id: "chatcmpl-7" } as GenerationRequest, 4);
  const parents = observation.traceparent === undefined ? [] : [observation.traceparent];
  for (const one of [step, decode]) {
    const trace = beginStep(parents, one);
    traceStep(trace.traceparents, one, { index: one.index, spans: [], timing });
    trace.end();
  }
  observation.firstToken();
  observation.ended({ kind: "finished", reasons: ["stop"], usage: USAGE });
}

serve();
// Observed instruments are read at an export, and not at the one at exit: it ends when one has come.
for await (const _ of Deno.stdin.readable);
