/**
 * What `bench` measures at one context: decoding of one sequence on a group that does nothing else, and what the files
 * beside this one know of its prompt and its corrections. Knows steps; each figure is explained where it is declared.
 */

import type { ModelConfig } from "../../../engine/model/model_config.ts";
import type { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { type CorrectionFigures, type CorrectionOptions, correctionTokens, measureCorrections } from "./corrections.ts";
import { type ExchangeFigures, exchangeFigures } from "./exchange.ts";
import type { Filling, PrefillFigures } from "./fill.ts";
import type { BenchGroup } from "./group.ts";
import { type MeasuredSequence, randomTokens, type StepMs, stepMs, timedRows } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** Decoding at one context. */
export interface DecodeFigures {
  readonly attention: "dense" | "sparse";
  /** By the median step. */
  readonly tokensPerSecond: number;
  readonly ms: StepMs;
  /** Mean round trip of a step: what cycles of many steps are compared with. */
  readonly meanMs: number;
  readonly exchange?: ExchangeFigures;
}

/** All about one context. */
export interface ContextFigures {
  readonly context: number;
  /** Absent when the cache was filled with copied pages. */
  readonly prefill?: PrefillFigures;
  readonly decode: readonly DecodeFigures[];
  /** Absent when none are asked for, and where nothing is sparse: there is nothing to correct then. */
  readonly corrections?: CorrectionFigures;
}

/** What to measure. */
export interface MeasureOptions extends CorrectionOptions {
  readonly context: number;
  readonly budget: number;
  /** To decode with a clock, per attention. */
  readonly tokens: number;
  /** To decode before: the host's code takes about a hundred steps to reach its speed. */
  readonly untimed: number;
  readonly readBackMs: number;
}

/** What is measured. */
export interface MeasuredHost {
  readonly host: SessionHost;
  readonly config: ModelConfig;
}

/** An idle card runs at a fraction of its clock: it is loaded for so long before anything is timed. */
const WARM_UP_MS = 500;

/** Tokens that a measurement puts into the cache: everything decoded starts at the context again. */
export function tokensOf(options: MeasureOptions): number {
  return options.context + Math.max(options.tokens + options.untimed, correctionTokens(options));
}

/** Compiles every kernel that the measurement uses, those of a prompt long enough to be split included, and warms clocks. */
export async function warmUp({ host, info, longest: { pageOffset, tokens } }: BenchGroup): Promise<void> {
  const session = host.open({ sparse: { budget: 16, heads: "kv_head" }, pageOffset });
  const prompt = Math.min(tokens - 8, 128 * info.slices.length + 80);
  await session.prefill(randomTokens(prompt, info.vocabSize));
  const start = performance.now();
  do await session.run({
    kind: "decode",
    attention: "dense",
    tokens: Uint32Array.of(1),
    logits: "last",
    from: prompt,
  }); while (performance.now() - start < WARM_UP_MS);
  if (info.roles !== undefined) await session.decode(1, "sparse");
  await session.close();
}

/** Measures one context. */
export async function measure(
  { host, config }: MeasuredHost,
  filling: Filling,
  options: MeasureOptions,
): Promise<ContextFigures> {
  const { context, budget, readBackMs } = options;
  const { session, ...filled } = await filling.open(context);
  try {
    const sequence = { host, session, config, context, readBackMs };
    const dense = await measureDecode(sequence, { ...options, attention: "dense" });
    if (host.runner.info.roles === undefined || context <= budget) return { context, ...filled, decode: [dense] };
    const decode = [dense, await measureDecode(sequence, { ...options, attention: "sparse" })];
    if (correctionTokens(options) === 0) return { context, ...filled, decode };
    const corrections = await measureCorrections(sequence, { ...options, denseMsPerToken: dense.meanMs });
    return { context, ...filled, decode, corrections };
  } finally {
    await session.close();
  }
}

async function measureDecode(
  { host, session, context, readBackMs }: MeasuredSequence,
  { attention, tokens, untimed }: {
    readonly attention: "dense" | "sparse";
    readonly tokens: number;
    readonly untimed: number;
  },
): Promise<DecodeFigures> {
  const rows = Array.from({ length: tokens + untimed }, (_, i) => ({ attention, from: context + i }));
  const steps = (await timedRows(host, session, rows)).slice(untimed);
  const ms = stepMs(steps, readBackMs);
  const { layers } = host.runner.info;
  const exchange = exchangeFigures(steps.map(({ timing }) => timing), { layers, tokens: steps.length });
  return {
    attention,
    tokensPerSecond: 1000 / ms.step,
    ms,
    meanMs: mean(steps.map(({ stepMs }) => stepMs)),
    ...(exchange === undefined ? {} : { exchange }),
  };
}
