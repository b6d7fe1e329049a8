/**
 * What `bench` measures: prefill and decoding of one sequence on a group that does nothing else.
 * Knows steps and clocks; what a figure means is said beside it.
 */

import type { Session } from "../../engine/session.ts";
import type { ByExchange, ExchangeTiming, StepResult } from "../../engine/span.ts";
import type { BenchGroup } from "./bench_group.ts";

/** What the lead worker spent on exchanges with its peers and the router; absent when it has no peer. */
export interface ExchangeFigures {
  /** Of a step, divided by the layers: queries and attention states, from own data on the host to all peers' on the GPU. */
  readonly msPerLayer: number;
  /** Of a step, divided by the layers: read-backs of own data, with the GPU work that they wait for. */
  readonly readMsPerLayer: number;
  /** Of a step, by kind. */
  readonly ms: ByExchange;
  /** Sent to all peers together, or to the router. */
  readonly bytesPerToken: ByExchange;
}

/** Medians over the decoded tokens, in milliseconds. */
export interface StepMs {
  /** Round trip as the router sees it. */
  readonly step: number;
  /** On the lead worker: planning and recording commands. */
  readonly encode: number;
  /** On the lead worker: from the last submit until the token is read, the read-back's own latency taken off. */
  readonly gpu: number;
  /** A read-back from an idle queue. */
  readonly readBack: number;
  /** What the lead worker did not see: framing, the socket, the event loops, slower peers. */
  readonly wire: number;
}

/** Decoding at one context. */
export interface DecodeFigures {
  readonly attention: "dense" | "sparse";
  readonly tokensPerSecond: number;
  readonly ms: StepMs;
  readonly exchange?: ExchangeFigures;
}

/** All about one context. */
export interface ContextFigures {
  readonly context: number;
  readonly prefillTokensPerSecond: number;
  /** From the first prefill step to the first token. */
  readonly firstTokenMs: number;
  readonly prefillExchange?: ExchangeFigures;
  readonly decode: readonly DecodeFigures[];
}

/** What to measure. */
export interface MeasureOptions {
  readonly context: number;
  readonly budget: number;
  /** To decode, per attention. */
  readonly tokens: number;
  /** Prompt tokens per prefill step. */
  readonly chunk: number;
  readonly readBackMs: number;
}

/** Decoded before the clock starts: the first token after a change of attention may still compile or grow memory. */
const UNTIMED = 1;

/** Tokens that a measurement puts into the cache. */
export function tokensOf({ context, tokens }: MeasureOptions): number {
  return context + 2 * (tokens + UNTIMED);
}

/** Compiles every kernel that the measurement uses, those of a prompt long enough to be split included. */
export async function warmUp(group: BenchGroup): Promise<void> {
  const { host, facts, longest } = group;
  const session = open(group, 16);
  const prompt = Math.min(longest.tokens - 8, 128 * facts.slices.length + 80);
  await session.prefill(randomTokens(prompt, facts.vocabSize));
  await session.decode(1);
  if (host.runner.facts.roles !== undefined) await session.decode(1, "sparse");
  await session.close();
}

/** Measures one context. */
export async function measure(group: BenchGroup, options: MeasureOptions): Promise<ContextFigures> {
  const { context, budget, chunk } = options;
  const session = open(group, budget);
  try {
    const tokens = randomTokens(context, group.facts.vocabSize);
    const timings: StepResult["timing"][] = [];
    const start = performance.now();
    for (let at = 0; at < context; at += chunk) {
      const end = Math.min(context, at + chunk);
      const logits = end === context ? "last" : "none";
      const step = session.plan({ kind: "prefill", tokens: tokens.subarray(at, end), logits });
      timings.push((await group.host.run(step)).timing);
    }
    const firstTokenMs = performance.now() - start;
    const decode = [await measureDecode(group, session, { ...options, attention: "dense" })];
    if (group.facts.roles !== undefined && context > budget) {
      decode.push(await measureDecode(group, session, { ...options, attention: "sparse" }));
    }
    const exchange = exchangeFigures(timings, { layers: group.facts.layers, tokens: context });
    const prefill = { prefillTokensPerSecond: context / (firstTokenMs / 1000), firstTokenMs };
    return { context, ...prefill, ...(exchange === undefined ? {} : { prefillExchange: exchange }), decode };
  } finally {
    await session.close();
  }
}

async function measureDecode(
  group: BenchGroup,
  session: Session,
  { attention, tokens, readBackMs }: MeasureOptions & { readonly attention: "dense" | "sparse" },
): Promise<DecodeFigures> {
  const steps: { readonly stepMs: number; readonly timing: StepResult["timing"] }[] = [];
  let token = 1;
  for (let i = 0; i < tokens + UNTIMED; i++) {
    const step = session.plan({ kind: "decode", attention, tokens: Uint32Array.of(token), logits: "last" });
    const start = performance.now();
    const { spans, timing } = await group.host.run(step);
    if (i >= UNTIMED) steps.push({ stepMs: performance.now() - start, timing });
    token = spans[0]?.token ?? 0;
  }
  const ms: StepMs = {
    step: median(steps.map(({ stepMs }) => stepMs)),
    encode: median(steps.map(({ timing }) => timing.encodeMs)),
    gpu: median(steps.map(({ timing }) => Math.max(0, timing.waitMs - readBackMs))),
    readBack: readBackMs,
    wire: median(steps.map(({ stepMs, timing }) => stepMs - timing.totalMs)),
  };
  const exchange = exchangeFigures(steps.map(({ timing }) => timing), {
    layers: group.facts.layers,
    tokens: steps.length,
  });
  return { attention, tokensPerSecond: 1000 / ms.step, ms, ...(exchange === undefined ? {} : { exchange }) };
}

/** Means over steps of what they tell about exchanges; undefined when they tell nothing. */
export function exchangeFigures(
  timings: readonly StepResult["timing"][],
  { layers, tokens }: { readonly layers: number; readonly tokens: number },
): ExchangeFigures | undefined {
  const exchanges = timings.flatMap(({ exchange }) => exchange === undefined ? [] : [exchange]);
  if (exchanges.length === 0) return undefined;
  const ms = scaled(exchanges, ({ ms }) => ms, 1 / exchanges.length);
  return {
    msPerLayer: (ms.queries + ms.states) / layers,
    readMsPerLayer: exchanges.reduce((sum, { readMs }) => sum + readMs, 0) / exchanges.length / layers,
    ms,
    bytesPerToken: scaled(exchanges, ({ bytes }) => bytes, 1 / tokens),
  };
}

function scaled(
  exchanges: readonly ExchangeTiming[],
  of: (exchange: ExchangeTiming) => ByExchange,
  factor: number,
): ByExchange {
  const total = (kind: keyof ByExchange) => factor * exchanges.reduce((sum, exchange) => sum + of(exchange)[kind], 0);
  return { queries: total("queries"), states: total("states"), rows: total("rows"), candidates: total("candidates") };
}

function open({ host, longest: { pageOffset } }: BenchGroup, budget: number): Session {
  return host.open({ sparse: { budget, heads: "kv_head" }, pageOffset });
}

function randomTokens(count: number, vocabSize: number): Uint32Array {
  let state = 1;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % vocabSize;
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}
