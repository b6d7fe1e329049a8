/**
 * How fast many sequences decode together: a step of one row each, over contexts of mixed lengths. Knows steps; what a
 * scheduler would admit is not asked.
 */

import { at } from "../../../kernels/at.ts";
import type { Session } from "../../../engine/evaluation/hand_session.ts";
import { pagesFor } from "../../../engine/span.ts";
import { rowAttention } from "../../../engine/layer_plan.ts";
import type { BenchGroup } from "./group.ts";
import { drawnRow, randomTokens, type StepMs, stepMs, timedSteps } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** Decoding of one batch. */
export interface BatchFigures {
  readonly batch: number;
  /** Of its sequences, before they decode. */
  readonly meanContext: number;
  readonly attention: "dense" | "sparse";
  /** Of all sequences together, by the mean step. */
  readonly tokensPerSecond: number;
  readonly ms: StepMs;
}

/** What to measure. */
export interface BatchOptions {
  /** Sizes. */
  readonly batch: readonly number[];
  /** Length of the longest sequence. */
  readonly batchContext: number;
  readonly budget: number;
  readonly chunk: number;
  readonly tokens: number;
  readonly untimed: number;
  readonly readBackMs: number;
}

/** Shortest sequence, as a part of the longest. */
const SHORTEST = 1 / 4;

/** The fractional part of its multiples spreads evenly, however many are taken. */
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** Length of the i-th sequence: from a quarter of the longest to the longest, mixed in every batch. */
export function mixedLength(index: number, longest: number): number {
  const place = ((index + 1) * GOLDEN) % 1;
  return Math.max(1, Math.round(longest * (SHORTEST + (1 - SHORTEST) * place)));
}

/** Measures every batch that fits; those that do not are left out. */
export async function measureBatches(group: BenchGroup, options: BatchOptions): Promise<BatchFigures[]> {
  const { host, info } = group;
  const { batchContext, untimed, tokens } = options;
  const fitting = options.batch.filter((batch) => pagesOf(batch, batchContext, untimed + tokens) <= info.kvPages);
  const figures: BatchFigures[] = [];
  const sessions: Session[] = [];
  try {
    for (const batch of [...fitting].sort((a, b) => a - b)) {
      while (sessions.length < batch) sessions.push(await filled(group, sessions.length, options));
      const kinds = host.runner.info.roles === undefined ? ["dense"] as const : ["dense", "sparse"] as const;
      for (const attention of kinds) {
        figures.push(await measureBatch(group, sessions.slice(0, batch), { ...options, attention }));
      }
    }
    return figures;
  } finally {
    for (const session of sessions) await session.close();
  }
}

function pagesOf(batch: number, longest: number, decoded: number): number {
  let pages = 0;
  for (let i = 0; i < batch; i++) pages += pagesFor(mixedLength(i, longest) + decoded);
  return pages;
}

async function filled({ host, info, map }: BenchGroup, index: number, options: BatchOptions): Promise<Session> {
  const { budget, batchContext, chunk } = options;
  const session = host.open({ sparse: { budget, heads: "kv_head" }, pageOffset: index % map.period });
  const tokens = randomTokens(mixedLength(index, batchContext), info.vocabSize);
  for (let at = 0; at < tokens.length; at += chunk) await session.prefill(tokens.subarray(at, at + chunk), "none");
  return session;
}

async function measureBatch(
  { host }: BenchGroup,
  sessions: readonly Session[],
  options: BatchOptions & { readonly attention: "dense" | "sparse" },
): Promise<BatchFigures> {
  const { attention, batchContext, tokens, untimed, readBackMs } = options;
  const contexts = sessions.map((_, i) => mixedLength(i, batchContext));
  const run = { count: untimed + tokens, first: sessions.map(() => 1) };
  const steps = await timedSteps(host, run, (i, drawn) => {
    const plans = sessions.map((session, place) => {
      const from = at(contexts, place) + i;
      const allowed = attention === "sparse" ? rowAttention(session.sparse, from) : "dense";
      return session.plan({ kind: "decode", attention: allowed, ...drawnRow(drawn, place), from, logits: "last" });
    });
    return { open: plans.flatMap(({ open }) => open), release: [], spans: plans.flatMap(({ spans }) => spans) };
  });
  const timed = steps.slice(untimed);
  return {
    batch: sessions.length,
    meanContext: mean(contexts),
    attention,
    tokensPerSecond: sessions.length * 1000 / mean(timed.map(({ stepMs }) => stepMs)),
    ms: stepMs(timed, readBackMs),
  };
}
