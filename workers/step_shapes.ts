/**
 * The reading of steps and their results as they come over the wire. Knows the fields of `engine/span.ts`; knows no other
 * message.
 */

import type {
  ByExchange,
  ExchangeTiming,
  LayerSelection,
  ReplicaCount,
  SamplingSettings,
  SequenceOpening,
  Span,
  SpanAudit,
  SpanResult,
  SparseSettings,
  Step,
  StepResult,
  StepTiming,
  TokenLogprobs,
} from "../engine/span.ts";
import { count, f32s, flag, list, maybe, oneOf, pair, real, record, type Shape, u32s, union } from "./shape.ts";

const sparse = record<SparseSettings>({ budget: count, heads: oneOf("kv_head", "query_head", "all_heads") }, {
  coverage: real,
});

const sampling = record<SamplingSettings>({
  temperature: real,
  topP: real,
  topK: count,
  minP: real,
  repetitionPenalty: real,
  presencePenalty: real,
  frequencyPenalty: real,
  logitBias: list(pair(count, real)),
  seed: count,
  minTokens: count,
  suppressed: list(count),
  topLogprobs: maybe(count),
});

const open = record<SequenceOpening>({
  sequence: count,
  sampling,
  sparse,
  promptTokens: count,
  pageOffset: count,
  prefixPages: u32s,
  prefixTokens: u32s,
  audited: flag,
}, { sparseExchange: oneOf("rows", "states") });

const spanFields = {
  sequence: count,
  from: count,
  tokens: u32s,
  logits: oneOf("none", "last", "all", "audit"),
  newPages: u32s,
} as const;

const always: Shape<true> = (value, path) => {
  oneOf("true")(String(value), path);
  return true;
};

const optionalSpanFields = {
  next: count,
  masks: u32s,
  masksFollow: always,
  reportsSelection: always,
  sampled: always,
} as const;

const span = union<Span>({
  prefill: record<Extract<Span, { kind: "prefill" }>>({ kind: oneOf("prefill"), ...spanFields }, optionalSpanFields),
  decode: record<Extract<Span, { kind: "decode" }>>({
    kind: oneOf("decode"),
    attention: oneOf("dense", "sparse"),
    ...spanFields,
  }, optionalSpanFields),
});

/** A step on its way to a worker. */
export const step: Shape<Step> = record<Step>({
  index: count,
  open: list(open),
  release: list(count),
  spans: list(span),
  deadlineMs: real,
}, { followed: always });

const logprobs = record<TokenLogprobs>({
  logprob: real,
  top: list(record<TokenLogprobs["top"][number]>({ token: count, logprob: real })),
});

const spanResult = record<SpanResult>({ sequence: count }, {
  token: count,
  logprobs,
  scores: record<NonNullable<SpanResult["scores"]>>({ logprob: f32s, argmax: u32s }),
  audit: record<SpanAudit>({ tokens: u32s, divergences: f32s }, { logprobs: list(logprobs) }),
  rowsRead: real,
  selections: list(record<LayerSelection>({ layer: count, sets: list(u32s) })),
});

const byExchange = record<ByExchange>({
  queries: real,
  keys: real,
  states: real,
  rows: real,
  candidates: real,
  replicas: real,
});

/** What a worker answers to it. */
export const result: Shape<StepResult> = record<StepResult>({
  index: count,
  spans: list(spanResult),
  timing: record<StepTiming>({ encodeMs: real, waitMs: real, totalMs: real }, {
    exchange: record<ExchangeTiming>({ ms: byExchange, readMs: real, bytes: byExchange, counts: byExchange }),
    replicas: record<ReplicaCount>({ chosen: count, missing: count }),
  }),
});
