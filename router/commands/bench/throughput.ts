/**
 * What groups side by side answer together: many chats at once through a fleet, as a service routes them. Knows groups and
 * generations; what HTTP and tokenizing cost is not in it.
 */

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { Fleet } from "../../fleet/fleet.ts";
import { openGroups } from "../../fleet/open_groups.ts";
import { planGroups } from "../../fleet/plan_groups.ts";
import { modelSource, nameOf } from "../../model_choice.ts";
import type { GenerationRequest } from "../../scheduling/generation.ts";
import { resolveWorkers } from "../../host/worker_config.ts";
import { mixedLength } from "./batches.ts";
import type { Table } from "./correction_tables.ts";
import { type BenchModel, type GroupListener, loaded } from "./group.ts";
import { randomTokens } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

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
  /** While the clock ran, by all answers together. */
  readonly tokensPerSecond: number;
  /** Mean over the chats. */
  readonly firstTokenMs: number;
  /** Chats that each group has taken. */
  readonly shares: readonly number[];
}

/** What to measure. */
export interface ThroughputOptions {
  readonly model: BenchModel;
  readonly groups: number;
  readonly workers: number;
  /** At a time: one that ends makes room for the next. */
  readonly chats: number;
  /** For how long the clock runs. */
  readonly seconds: number;
  /** Length of the longest prompt; the shortest is a quarter of it. */
  readonly batchContext: number;
  /** Of each answer. */
  readonly tokens: number;
  readonly listener: GroupListener;
}

/** A slow machine is measured too. */
const PATIENT_MS = 86_400_000;

/**
 * Starts the groups, has them answer each chat once untimed, and then one after the other for the clock.
 * @throws {RequestError} `group_unavailable` when a group cannot load the model
 */
export async function measureThroughput(options: ThroughputOptions): Promise<ThroughputFigures> {
  const { groups: count, workers, chats, listener: { onProgress, log } } = options;
  const { copies, sparseExchange, ...flags } = options.model;
  const model = modelSource(flags);
  const planned = await planGroups(resolveWorkers({ ...flags, groups: count, workers, sparseExchange }));
  const groups = openGroups(planned, { model, modelId: nameOf(model), copies, sparseExchange, log });
  const answered = groups.map(() => 0);
  const fleet = new Fleet(groups, (group) => ({
    maxQueued: chats,
    queueTimeoutMs: PATIENT_MS,
    observer: { onEnded: () => void (answered[group] = (answered[group] ?? 0) + 1) },
  }));
  try {
    const [info] = await Promise.all(groups.map((group) => loaded(group, onProgress)));
    const { id = "", parameters = 0, vocabSize = 0 } = info ?? {};
    await answer(fleet, options, { vocabSize, endMs: -Infinity });
    answered.fill(0);
    const figures = await answer(fleet, options, { vocabSize, endMs: performance.now() + 1000 * options.seconds });
    return { model: id, parameters, groups: count, workers, chats, ...figures, shares: answered };
  } finally {
    const closing = fleet.close();
    await Promise.all(groups.map((group) => group.close()));
    await closing;
  }
}

/** Each client asks again when it has its answer, until the time is over; what runs then is given up, but each gets one answer. */
async function answer(
  fleet: Fleet,
  { chats, batchContext, tokens }: ThroughputOptions,
  { vocabSize, endMs }: { readonly vocabSize: number; readonly endMs: number },
): Promise<Pick<ThroughputFigures, "promptTokens" | "tokensPerSecond" | "firstTokenMs">> {
  const startMs = performance.now();
  const prompts: number[] = [];
  const firsts: number[] = [];
  let drawn = 0;
  const client = async (_: unknown, number: number) => {
    for (let turn = 0; turn === 0 || performance.now() < endMs; turn++) {
      const promptTokens = randomTokens(mixedLength(number + turn, batchContext), vocabSize);
      prompts.push(promptTokens.length);
      const askedMs = performance.now();
      const generation = fleet.generate(chatOf(promptTokens, tokens));
      let isFirst = true;
      for await (const { kind } of generation) {
        if (kind !== "token") continue;
        const nowMs = performance.now();
        if (isFirst) firsts.push(nowMs - askedMs);
        isFirst = false;
        if (nowMs < endMs) drawn++;
        else if (turn > 0) generation.cancel();
      }
    }
  };
  await Promise.all(Array.from({ length: chats }, client));
  return {
    promptTokens: mean(prompts),
    tokensPerSecond: drawn * 1000 / (endMs - startMs),
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
