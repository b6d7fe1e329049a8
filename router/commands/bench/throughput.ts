/**
 * What groups side by side answer together: many chats at once through a fleet, as a service routes them. Knows groups and
 * generations; what HTTP and tokenizing cost is not in it.
 */

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { Fleet } from "../../fleet/fleet.ts";
import { openGroups } from "../../fleet/open_groups.ts";
import { planGroups } from "../../fleet/plan_groups.ts";
import { modelSource, nameOf } from "../../model_choice.ts";
import type { Generation, GenerationRequest } from "../../scheduling/generation.ts";
import { resolveWorkers } from "../../host/worker_config.ts";
import { mixedLength } from "./batches.ts";
import type { Table } from "./correction_tables.ts";
import { type BenchModel, type GroupListener, loaded } from "./group.ts";
import { mean, randomTokens } from "./steps.ts";

/** What so many groups did with the chats. */
export interface ThroughputFigures {
  readonly model: string;
  readonly parameters: number;
  readonly groups: number;
  /** Of each group. */
  readonly workers: number;
  readonly chats: number;
  /** Mean over the chats. */
  readonly promptTokens: number;
  /** From the first request to the end of the last answer, by all answers together. */
  readonly tokensPerSecond: number;
  /** Mean over the chats. */
  readonly firstTokenMs: number;
  /** Chats that each group has answered. */
  readonly shares: readonly number[];
}

/** What to measure. */
export interface ThroughputOptions {
  readonly model: BenchModel;
  readonly groups: number;
  readonly workers: number;
  readonly chats: number;
  /** Length of the longest prompt; the shortest is a quarter of it. */
  readonly batchContext: number;
  /** Of each answer. */
  readonly tokens: number;
  readonly listener: GroupListener;
}

/** A slow machine is measured too. */
const PATIENT_MS = 86_400_000;

/**
 * Starts the groups, has them answer the chats once untimed, and once for the clock.
 * @throws {RequestError} `group_unavailable` when a group cannot load the model
 */
export async function measureThroughput(options: ThroughputOptions): Promise<ThroughputFigures> {
  const { groups: count, workers, chats, listener: { onProgress, log } } = options;
  const { sparseExchange, ...flags } = options.model;
  const model = modelSource(flags);
  const planned = await planGroups(resolveWorkers({ ...flags, groups: count, workers, sparseExchange }));
  const groups = openGroups(planned, { model, modelId: nameOf(model), sparseExchange, log });
  const answered = groups.map(() => 0);
  const fleet = new Fleet(groups, (group) => ({
    maxQueued: chats,
    queueTimeoutMs: PATIENT_MS,
    observer: { onEnded: () => void (answered[group] = (answered[group] ?? 0) + 1) },
  }));
  try {
    const [info] = await Promise.all(groups.map((group) => loaded(group, onProgress)));
    const { id = "", parameters = 0, vocabSize = 0 } = info ?? {};
    await answerAll(fleet, options, vocabSize);
    answered.fill(0);
    const figures = await answerAll(fleet, options, vocabSize);
    return { model: id, parameters, groups: count, workers, chats, ...figures, shares: answered };
  } finally {
    const closing = fleet.close();
    await Promise.all(groups.map((group) => group.close()));
    await closing;
  }
}

async function answerAll(
  fleet: Fleet,
  { chats, batchContext, tokens }: ThroughputOptions,
  vocabSize: number,
): Promise<Pick<ThroughputFigures, "promptTokens" | "tokensPerSecond" | "firstTokenMs">> {
  const prompts = Array.from({ length: chats }, (_, i) => randomTokens(mixedLength(i, batchContext), vocabSize));
  const startMs = performance.now();
  const firsts = await Promise.all(prompts.map(async (promptTokens) => {
    const generation = fleet.generate(chatOf(promptTokens, tokens));
    return await firstTokenAtMs(generation) - startMs;
  }));
  const tookMs = performance.now() - startMs;
  return {
    promptTokens: mean(prompts.map(({ length }) => length)),
    tokensPerSecond: chats * tokens * 1000 / tookMs,
    firstTokenMs: mean(firsts),
  };
}

/** A greedy answer of a given length, in a tenancy of its own: what an earlier round has cached is not found. */
function chatOf(promptTokens: Uint32Array, maxTokens: number): GenerationRequest {
  const id = crypto.randomUUID();
  return {
    id,
    requestId: id,
    choices: 1,
    priority: 0,
    promptTokens,
    maxTokens,
    sampling: GREEDY,
    attention: {
      mode: "auto",
      budget: undefined,
      heads: "kv_head",
      correction: { mode: "off", every: "auto", perToken: false },
    },
    stopTokens: [],
    cacheSalt: id,
    traceparent: undefined,
  };
}

/** Reads an answer to its end. @returns when its first token came */
async function firstTokenAtMs(generation: Generation): Promise<number> {
  let first = Infinity;
  for await (const { kind } of generation) if (kind === "token") first = Math.min(first, performance.now());
  return first;
}

/** One row for each number of groups; the last column compares with the first row of as many workers. */
export function throughputTable(figures: readonly ThroughputFigures[]): Table {
  return {
    columns: [
      "groups",
      "workers each",
      "chats",
      "mean prompt",
      "tokens/s",
      "first token ms",
      "chats of each",
      "÷ first",
    ],
    rows: figures.map(({ groups, workers, chats, promptTokens, tokensPerSecond, firstTokenMs, shares }) => {
      const base = figures.find((other) => other.workers === workers)?.tokensPerSecond ?? tokensPerSecond;
      return [
        ...[groups, workers, chats].map(String),
        promptTokens.toFixed(0),
        tokensPerSecond.toFixed(1),
        firstTokenMs.toFixed(0),
        shares.join(" + "),
        (tokensPerSecond / base).toFixed(2),
      ];
    }),
  };
}
