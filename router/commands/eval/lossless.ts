/**
 * Is lossless decoding dense decoding, token for token? Answers the same questions densely and losslessly, all together as
 * a service would, on groups of worker processes. Knows requests and answers; `router/scheduling` knows how they run.
 */

import type { QuantizedDType } from "../../../kernels/weights/format.ts";
import type { GpuChoice } from "../../../kernels/choose_provider.ts";
import { loadTextModel, needleTokens } from "../../../engine/evaluation/needles.ts";
import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { PAGE_TOKENS, pagesFor, type SamplingSettings } from "../../../engine/span.ts";
import type { Group } from "../../group/group.ts";
import type { CorrectionUsage, GenerationRequest } from "../../scheduling/generation.ts";
import { Scheduler } from "../../scheduling/scheduler.ts";
import type { Terminal } from "../../terminal.ts";
import { listenerOn, openBenchGroup } from "../bench/group.ts";
import { readNeedles } from "./evaluation_data.ts";

/** What to compare. */
export interface LosslessOptions {
  readonly gpu: GpuChoice;
  readonly model: string;
  readonly quantize: QuantizedDType | undefined;
  /** Directory of the questions. */
  readonly data: string;
  readonly prompts: number;
  /** Drawn for every prompt, stop tokens included. */
  readonly tokens: number;
  readonly budgets: readonly number[];
  /** Groups of so many workers, which may share a GPU. */
  readonly workers: readonly number[];
}

/** Answers of one group, at one budget, with one way of sampling. */
export interface LosslessFigures {
  readonly workers: number;
  readonly budget: number;
  readonly sampling: "greedy" | "seeded";
  readonly answers: number;
  /** Answers whose tokens are all those of dense decoding. */
  readonly identical: number;
  readonly tokens: number;
  /** Drafts that were compared with dense tokens, up to the first divergence of each correction. */
  readonly checked: number;
  readonly agreed: number;
  readonly rollbacks: number;
  /** Drafts thrown away. */
  readonly dropped: number;
  readonly corrections: number;
  /** Rows of all corrections. */
  readonly rows: number;
}

/** All that was found; `--json` prints it as it is. */
export interface LosslessResult {
  readonly adapter: string;
  readonly prompts: number;
  readonly tokens: number;
  /** Of all answers of a group, as many together as fit: dense, then lossless at each budget. */
  readonly seconds: readonly { readonly workers: number; readonly attention: string; readonly seconds: number }[];
  readonly figures: readonly LosslessFigures[];
}

const SEEDS = [1, 2, 3];

/** Questions up to this length. */
const MAX_TOKENS = 1000;

/** Answers that are computed together. */
const BATCH = 32;

type Duration = LosslessResult["seconds"][number];

interface Answer {
  readonly sampling: LosslessFigures["sampling"];
  readonly tokens: readonly number[];
  readonly correction: CorrectionUsage | undefined;
}

/** Runs everything on one group after the other. */
export async function evaluateLossless(options: LosslessOptions, terminal: Terminal): Promise<LosslessResult> {
  const { model, quantize, gpu, prompts, tokens } = options;
  const requests = await requestsOf(options);
  const seconds: Duration[] = [];
  const figures: LosslessFigures[] = [];
  let adapter = "";
  for (const workers of options.workers) {
    const kvTokens = [kvTokensOf(requests, workers)];
    const flags = {
      model,
      random: undefined,
      quantize,
      kvTokens,
      shareGpu: true,
      gpu,
      copies: "auto",
      sparseExchange: "states",
    } as const;
    const group = await openBenchGroup(flags, workers, listenerOn(terminal));
    adapter = group.info.adapter;
    try {
      const answer = async (attention: string, asked: readonly GenerationRequest[]) => {
        const label = `${attention}, ${workers} worker${workers === 1 ? "" : "s"}`;
        const start = performance.now();
        const answers = await answerAll(group.group, asked, (done) => terminal.progress(label, done));
        seconds.push({ workers, attention, seconds: (performance.now() - start) / 1000 });
        return answers;
      };
      for (const compared of await compareBudgets(requests, options.budgets, answer)) {
        figures.push({ workers, ...compared });
      }
    } finally {
      await group.close();
    }
  }
  return { adapter, prompts, tokens, seconds, figures };
}

/** Answers densely, then losslessly at each budget, and compares. */
async function compareBudgets(
  requests: readonly GenerationRequest[],
  budgets: readonly number[],
  answer: (attention: string, asked: readonly GenerationRequest[]) => Promise<readonly Answer[]>,
): Promise<readonly Omit<LosslessFigures, "workers">[]> {
  const figures: Omit<LosslessFigures, "workers">[] = [];
  const dense = await answer("dense", requests);
  for (const budget of budgets) {
    const lossless = await answer(`lossless ${budget}`, requests.map((request) => losslessly(request, budget)));
    for (const sampling of ["greedy", "seeded"] as const) {
      figures.push({ budget, ...compare(dense, lossless, sampling) });
    }
  }
  return figures;
}

/** What each worker must hold for a full batch of the longest answers; pages are dealt unevenly by one or two. */
function kvTokensOf(requests: readonly GenerationRequest[], workers: number): number {
  const longest = Math.max(...requests.map(({ promptTokens, maxTokens }) => promptTokens.length + maxTokens));
  return Math.ceil(BATCH * (pagesFor(longest) + 2) / workers) * PAGE_TOKENS;
}

/** Every question greedily and with each seed, densely. */
async function requestsOf({ model, data, prompts, tokens }: LosslessOptions): Promise<GenerationRequest[]> {
  const text = await loadTextModel(model);
  const all = (await readNeedles(data)).filter(({ size }) => size <= MAX_TOKENS);
  const samplings: readonly SamplingSettings[] = [
    GREEDY,
    ...SEEDS.map((seed) => ({ ...GREEDY, temperature: 1, seed })),
  ];
  return all.slice(0, prompts).flatMap((needle) => {
    const parts = needleTokens(text, needle);
    const promptTokens = Uint32Array.of(...parts.text, ...parts.question);
    return samplings.map((sampling): GenerationRequest => ({
      id: `${needle.id}/${sampling.seed}`,
      requestId: `${needle.id}/${sampling.seed}`,
      choices: 1,
      priority: 0,
      promptTokens,
      maxTokens: tokens,
      sampling,
      attention: {
        mode: "dense",
        budget: undefined,
        heads: "kv_head",
        correction: { mode: "off", every: "auto", perToken: false },
      },
      stopTokens: [],
      cacheSalt: "",
      traceparent: undefined,
    }));
  });
}

function losslessly(request: GenerationRequest, budget: number): GenerationRequest {
  const correction = { mode: "lossless", every: "auto", perToken: false } as const;
  return { ...request, attention: { mode: "sparse", budget, heads: "kv_head", correction } };
}

/** Answers in the order of the requests. */
async function answerAll(
  group: Group,
  requests: readonly GenerationRequest[],
  onProgress: (fraction: number) => void,
): Promise<readonly Answer[]> {
  const scheduler = new Scheduler(group, { maxBatch: BATCH, maxQueued: requests.length, queueTimeoutMs: 3_600_000 });
  let done = 0;
  try {
    return await Promise.all(requests.map(async (request): Promise<Answer> => {
      const generation = scheduler.generate(request);
      const tokens: number[] = [];
      for await (const event of generation) if (event.kind === "token") tokens.push(event.token);
      onProgress(++done / requests.length);
      const sampling = request.sampling.temperature === 0 ? "greedy" : "seeded";
      return { sampling, tokens, correction: generation.usage().attention.correction };
    }));
  } finally {
    await scheduler.close();
  }
}

function compare(
  dense: readonly Answer[],
  lossless: readonly Answer[],
  sampling: LosslessFigures["sampling"],
): Omit<LosslessFigures, "workers" | "budget"> {
  const pairs = lossless.map((answer, i) => ({ answer, expected: dense[i]?.tokens ?? [] }))
    .filter(({ answer }) => answer.sampling === sampling);
  const sum = (of: (correction: CorrectionUsage) => number) =>
    pairs.reduce((total, { answer: { correction } }) => total + (correction === undefined ? 0 : of(correction)), 0);
  return {
    sampling,
    answers: pairs.length,
    identical: pairs.filter(({ answer: { tokens }, expected }) => tokens.join() === expected.join()).length,
    tokens: pairs.reduce((total, { answer }) => total + answer.tokens.length, 0),
    checked: sum(({ audit }) => audit?.checked ?? 0),
    agreed: sum(({ audit }) => audit?.agreed ?? 0),
    rollbacks: sum(({ rollbacks }) => rollbacks),
    dropped: sum(({ dropped }) => dropped),
    corrections: sum(({ corrections }) => corrections),
    rows: sum(({ rows }) => rows),
  };
}

/** Two tables: what came out, and how long it took. */
export function reportLossless({ adapter, prompts, tokens, seconds, figures }: LosslessResult): string[] {
  return [
    `Adapter ${adapter}; ${prompts} questions × (greedy, ${SEEDS.length} seeds at temperature 1) × ${tokens} tokens, ` +
    `${BATCH} answers together`,
    "",
    "| workers | budget | sampling | answers identical to dense | roll-backs | drafts agree | drafts thrown away | tokens per correction | rows per correction |",
    "|---|---|---|---|---|---|---|---|---|",
    ...figures.map((row) => {
      const { workers, budget, sampling, identical, answers, rollbacks, checked, agreed, dropped } = row;
      return `| ${workers} | ${budget} | ${sampling} | ${identical}/${answers} | ${rollbacks} | ${
        (100 * agreed / checked).toFixed(1)
      } % | ${dropped} | ${(row.tokens / row.corrections).toFixed(2)} | ${(row.rows / row.corrections).toFixed(2)} |`;
    }),
    "",
    "| workers | attention | seconds | tokens/s |",
    "|---|---|---|---|",
    ...seconds.map((row) =>
      `| ${row.workers} | ${row.attention} | ${row.seconds.toFixed(1)} | ${
        (prompts * (1 + SEEDS.length) * tokens / row.seconds).toFixed(0)
      } |`
    ),
  ];
}
