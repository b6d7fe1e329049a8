/**
 * Requests and steps as OpenTelemetry spans, metrics as OpenTelemetry instruments. The only importer of its API; the SDK
 * is Deno's own (`OTEL_DENO=true`), and without it all of this does nothing.
 * Knows records and numbers; prompts and answers never come here.
 */

import {
  type Attributes,
  type Context,
  context,
  type Link,
  metrics,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { Step, StepResult } from "../../engine/span.ts";
import type { CodedError } from "../../kernels/errors.ts";
import type { CorrectionUsage } from "../scheduling/generation.ts";
import { METRIC_NAMES } from "./metrics.ts";
import type { InstrumentDefinition, Labels, Mirror, Reading } from "./metrics_registry.ts";
import { nowMs, type ReceivedRequest, type RequestRecord, type RequestTrace } from "./request_record.ts";

const SCOPE = "tidepool";

/** Instruments that have a name in the GenAI conventions; all others are ours, with dots for the first underscore. */
const CONVENTIONAL_NAMES: Readonly<Record<string, string>> = {
  [METRIC_NAMES.requestSeconds]: "gen_ai.server.request.duration",
  [METRIC_NAMES.firstTokenSeconds]: "gen_ai.server.time_to_first_token",
  [METRIC_NAMES.outputTokenSeconds]: "gen_ai.server.time_per_output_token",
};

/** Labels that have a name in the GenAI conventions. */
const CONVENTIONAL_LABELS: Readonly<Record<string, string>> = {
  "model_name": "gen_ai.request.model",
  "operation": "gen_ai.operation.name",
  "error_type": "error.type",
};

/** Records every value with OpenTelemetry too. */
export const openTelemetryMirror: Mirror = {
  record(instrument) {
    const meter = metrics.getMeter(SCOPE);
    const { name, options } = described(instrument);
    if (instrument.kind === "counter") {
      const counter = meter.createCounter(name, options);
      return (value, labels) => counter.add(value, attributesOf(labels));
    }
    const histogram = meter.createHistogram(name, {
      ...options,
      advice: { explicitBucketBoundaries: [...instrument.buckets] },
    });
    return (value, labels) => histogram.record(value, attributesOf(labels));
  },
  observe(instrument, read: () => readonly Reading[]) {
    const meter = metrics.getMeter(SCOPE);
    const { name, options } = described(instrument);
    const observable = instrument.kind === "counter"
      ? meter.createObservableCounter(name, options)
      : meter.createObservableGauge(name, options);
    observable.addCallback((result) => {
      for (const { value, labels = {} } of read()) result.observe(value, attributesOf(labels));
    });
  },
};

function described(
  { name, help }: InstrumentDefinition,
): { name: string; options: { description: string; unit: string } } {
  const unit = /_seconds(_total)?$/.test(name) ? "s" : name.endsWith("_bytes_total") ? "By" : "1";
  const own = name.replace("_", ".").replace(/_total$/, "").replace(/_seconds$/, "");
  return { name: CONVENTIONAL_NAMES[name] ?? own, options: { description: help, unit } };
}

function attributesOf(labels: Labels): Attributes {
  const named = Object.entries(labels).map(([name, value]) => [CONVENTIONAL_LABELS[name] ?? name, value] as const);
  return { "gen_ai.provider.name": SCOPE, ...Object.fromEntries(named) };
}

/** Starts the span of a request, below the client's; it ends with the stream, not with its headers. */
export function traceRequest(received: ReceivedRequest): RequestTrace {
  const parent = contextFrom(received.traceparent);
  const origin = received.context?.origin;
  const span = trace.getTracer(SCOPE).startSpan(received.operation, {
    kind: SpanKind.SERVER,
    attributes: {
      "gen_ai.operation.name": received.operation,
      "gen_ai.provider.name": SCOPE,
      ...(origin === undefined ? {} : { "http.request.method": origin.method, "http.route": origin.path }),
    },
  }, parent);
  const own = trace.setSpan(parent, span);
  return {
    traceparent: traceparentOf(own),
    end(record) {
      describeRequest(span, record);
      addPhases(own, record);
      span.end(record.endedAt);
    },
  };
}

/** Every so many decode steps a span: one for each would be thousands an answer. */
const TRACED_DECODE_STEPS = 64;

/** The span of a step, from its beginning on. */
export interface StepTrace {
  /** What its workers continue. */
  readonly traceparents: readonly string[];
  /** It is over. @param error why it failed */
  end(error?: CodedError): void;
}

function isTraced(step: Step): boolean {
  return step.spans.some(({ kind }) => kind === "prefill") || step.index % TRACED_DECODE_STEPS === 0;
}

/** Starts the span of a step as the router sees it, below the first of its requests and linked to the others. */
export function beginStep(traceparents: readonly string[], step: Step): StepTrace {
  const [first, ...others] = traceparents;
  if (first === undefined || !isTraced(step)) return { traceparents, end: () => {} };
  const parent = contextFrom(first);
  const span = trace.getTracer(SCOPE).startSpan("step", {
    links: others.flatMap(linkTo),
    attributes: stepAttributes(step),
  }, parent);
  const own = traceparentOf(trace.setSpan(parent, span));
  return {
    traceparents: own === undefined ? traceparents : [own, ...others],
    end(error) {
      if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error.code });
      span.end();
    },
  };
}

/** A step that a worker ran, as a span below that of the router. */
export function traceStep(traceparents: readonly string[], step: Step, result: StepResult): void {
  if (!isTraced(step)) return;
  const [parent, ...others] = traceparents;
  const endedAt = nowMs();
  const span = trace.getTracer(SCOPE).startSpan("worker step", {
    startTime: endedAt - result.timing.totalMs,
    links: others.flatMap(linkTo),
    attributes: {
      ...stepAttributes(step),
      "tidepool.step.encode_ms": result.timing.encodeMs,
      "tidepool.step.wait_ms": result.timing.waitMs,
      ...exchangeAttributes(result.timing),
    },
  }, contextFrom(parent));
  span.end(endedAt);
}

function stepAttributes(step: Step): Attributes {
  return {
    "tidepool.step.index": step.index,
    "tidepool.step.spans": step.spans.length,
    "tidepool.step.rows": step.spans.reduce((rows, { tokens }) => rows + tokens.length, 0),
    "tidepool.step.prefill": step.spans.some(({ kind }) => kind === "prefill"),
  };
}

/** None for a worker that is alone. */
function exchangeAttributes({ exchange }: StepResult["timing"]): Attributes {
  if (exchange === undefined) return {};
  const { ms, bytes } = exchange;
  return Object.fromEntries([
    ...Object.entries(ms).map(([kind, value]) => [`tidepool.step.exchange.${kind}_ms`, value]),
    ...Object.entries(bytes).map(([kind, value]) => [`tidepool.step.exchange.${kind}_bytes`, value]),
  ]);
}

function contextFrom(traceparent: string | undefined): Context {
  return traceparent === undefined ? context.active() : propagation.extract(context.active(), { traceparent });
}

function linkTo(traceparent: string): Link[] {
  const spanContext = trace.getSpanContext(contextFrom(traceparent));
  return spanContext === undefined ? [] : [{ context: spanContext }];
}

function traceparentOf(own: Context): string | undefined {
  const carrier: { traceparent?: string } = {};
  propagation.inject(own, carrier);
  return carrier.traceparent;
}

function describeRequest(span: Span, record: RequestRecord): void {
  const { accepted, outcome } = record;
  span.setAttributes({ "gen_ai.response.id": record.id, "gen_ai.request.id": record.id, ...latencies(record) });
  if (accepted !== undefined) {
    span.updateName(`${record.operation} ${accepted.model}`);
    span.setAttributes({
      "gen_ai.request.model": accepted.model,
      "gen_ai.response.model": accepted.model,
      "gen_ai.request.stream": accepted.stream,
      "gen_ai.request.choice.count": accepted.choices,
      "gen_ai.request.max_tokens": accepted.maxTokens,
      "gen_ai.request.temperature": accepted.temperature,
      "gen_ai.request.top_p": accepted.topP,
      "gen_ai.request.top_k": accepted.topK,
      "gen_ai.usage.input_tokens": accepted.promptTokens,
      "tidepool.attention.asked": accepted.attention.mode,
    });
  }
  if (outcome.kind === "finished") {
    const { usage: { promptTokens, completionTokens, cachedTokens, attention } } = outcome;
    span.setAttributes({
      "gen_ai.response.finish_reasons": [...outcome.reasons],
      "gen_ai.usage.output_tokens": completionTokens,
      "gen_ai.usage.prompt_tokens": promptTokens,
      "gen_ai.usage.completion_tokens": completionTokens,
      "gen_ai.usage.cache_read.input_tokens": cachedTokens,
      "tidepool.attention.mode": attention.mode,
      "tidepool.attention.rows_read_per_token": attention.rowsReadPerToken,
      ...correctionAttributes(attention.correction),
    });
    return;
  }
  const type = outcome.kind === "failed" ? outcome.code : "client_disconnected";
  span.setAttribute("error.type", type);
  span.setStatus({ code: SpanStatusCode.ERROR, message: type });
}

/** None when corrections were off. */
function correctionAttributes(correction: CorrectionUsage | undefined): Attributes {
  if (correction === undefined) return {};
  const { mode, corrections, rows, dropped, audit } = correction;
  const done = {
    "tidepool.correction.mode": mode,
    "tidepool.correction.count": corrections,
    "tidepool.correction.rows": rows,
    "tidepool.correction.dropped_drafts": dropped,
  };
  if (audit === undefined) return done;
  const { checked, agreed, divergence, measured, firstDivergence } = audit;
  return {
    ...done,
    "tidepool.audit.checked": checked,
    "tidepool.audit.agreed": agreed,
    ...(measured > 0 && { "tidepool.audit.mean_kl": divergence / measured }),
    ...(firstDivergence !== undefined && { "tidepool.audit.first_divergence": firstDivergence }),
  };
}

/** The keys that vLLM and SGLang use, which dashboards read. */
function latencies({ receivedAt, admittedAt, queueMs, firstTokenAt, endedAt }: RequestRecord): Attributes {
  const seconds = (from: number | undefined, to: number | undefined) =>
    from === undefined || to === undefined ? undefined : (to - from) / 1000;
  const known = {
    "gen_ai.latency.time_in_queue": queueMs === undefined ? undefined : queueMs / 1000,
    "gen_ai.latency.time_to_first_token": seconds(receivedAt, firstTokenAt),
    "gen_ai.latency.time_in_model_prefill": seconds(admittedAt, firstTokenAt),
    "gen_ai.latency.time_in_model_decode": seconds(firstTokenAt, endedAt),
    "gen_ai.latency.time_in_model_inference": seconds(admittedAt, endedAt),
    "gen_ai.latency.e2e": seconds(receivedAt, endedAt),
  };
  return Object.fromEntries(Object.entries(known).filter(([, value]) => value !== undefined));
}

/** The spans of what happened inside; made at the end, when all moments are known. */
function addPhases(own: Context, record: RequestRecord): void {
  const { admittedAt, queueMs, firstTokenAt, endedAt } = record;
  if (admittedAt === undefined) return;
  const phases = [
    { name: "queue", from: admittedAt - (queueMs ?? 0), to: admittedAt },
    { name: "prefill", from: admittedAt, to: firstTokenAt ?? endedAt },
    ...(firstTokenAt === undefined ? [] : [{ name: "decode", from: firstTokenAt, to: endedAt }]),
  ];
  const tracer = trace.getTracer(SCOPE);
  for (const { name, from, to } of phases) tracer.startSpan(name, { startTime: from }, own).end(to);
}
