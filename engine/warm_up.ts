/**
 * A worker's first steps, before anything is served: each kind of row once, so that no request waits for a shader to be
 * compiled, and once more against the clock, so that the router can predict steps and notice a hang from the first one on.
 * Runs on a whole group as well, whose exchanges have kernels of their own. Software adapters compile what a kind of row needs in
 * less time than a few of its tokens take: there, only kinds that most requests consist of come first.
 */

import type { MeasuredStep } from "./engine_info.ts";
import { MIN_BUDGET } from "./layer_plan.ts";
import { PageMap } from "./page_map.ts";
import { MAX_TILED_ROWS } from "./pass/batch_plan.ts";
import {
  GREEDY,
  type HandSpan,
  type Session,
  SessionHost,
  type SessionOptions,
  type SessionRunner,
} from "./evaluation/hand_session.ts";
import { PAGE_TOKENS, type SparseSettings } from "./span.ts";

/** Rows of a prompt that is longer than the smallest budget. */
const PROMPT = MIN_BUDGET + 8;

/**
 * What a long prompt may take, as far as a short one tells: on slow adapters fewer rows are tried, where compiling is the
 * smaller part of the wait for a first prompt.
 */
const LONG_PROMPT_MS = 2000;

/** Rows of a prompt: enough for large tiles, and a whole batch. */
const LONG_PROMPTS = [512, MAX_TILED_ROWS] as const;

/** Far above those of a router, so that nothing which remembers sequences takes one for another. */
const FIRST_SEQUENCE = 2 ** 30;

/** Rows of corrections, one for each width of the products. */
const CORRECTIONS = [8, 4, 2] as const;

/** Rows of the corrections that follow a long prompt: on matrix units, attention and products have tiles for each height. */
const TALL_CORRECTIONS = [64, 32, 16] as const;

/** How sparse rows may attend beside the default. */
const SPARSE: readonly SparseSettings[] = (["kv_head", "query_head", "all_heads"] as const).flatMap((heads) => [
  { budget: MIN_BUDGET, heads },
  { budget: MIN_BUDGET, heads, coverage: 0.9 },
]).slice(1);

/** Draws with all that a request may ask for. */
const SAMPLING = {
  ...GREEDY,
  temperature: 1,
  topP: 0.9,
  topK: 8,
  minP: 0.01,
  repetitionPenalty: 1.1,
  logitBias: [[0, 1]],
  topLogprobs: 1,
} as const;

/** A span, and as what its time counts. */
interface Trial {
  readonly kind: MeasuredStep["kind"];
  readonly span: HandSpan;
  readonly context: number;
}

/**
 * Warms up a runner that is not in use yet; no sequence is left open.
 * @param map of a group's workers @default one worker
 * @returns what each kind of step took, of one worker once it was warm; empty where the slice is too small to try
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function warmUp(runner: SessionRunner, map?: PageMap): Promise<readonly MeasuredStep[]> {
  const host = new SessionHost(runner, map ?? new PageMap([runner.info.kvPages]), FIRST_SEQUENCE);
  const positions = Math.min(runner.info.maxPositions, runner.info.kvPages * PAGE_TOKENS);
  if (positions < 2 * PAGE_TOKENS) return [];
  if (runner.info.software) {
    const first = await run(host, {});
    // Each worker of a group has measured itself.
    return map === undefined ? await run(host, {}) : first;
  }
  await run(host, { sampling: SAMPLING, audited: true });
  if (runner.info.roles !== undefined) await sparseRows(host);
  const measured = await run(host, {});
  await longPrompt(host, { measured, positions });
  return measured;
}

/**
 * Prompts of the lengths whose products have kernels of their own on GPUs, up to as long as a batch of rows gets, corrections of the
 * last one's end, and rows after it; working memory grows with them. Software adapters have one kernel for all lengths.
 */
async function longPrompt(
  host: SessionHost,
  { measured, positions }: { readonly measured: readonly MeasuredStep[]; readonly positions: number },
): Promise<void> {
  let rowMs = Math.max(1e-3, measured.find(({ kind }) => kind === "prefill")?.ms ?? Infinity) / PROMPT;
  for (const length of LONG_PROMPTS) {
    const rows = Math.min(length, Math.floor(LONG_PROMPT_MS / rowMs), positions - PAGE_TOKENS);
    if (rows <= PROMPT) return;
    const session = host.open({ sparse: { budget: MIN_BUDGET, heads: "kv_head" } });
    await session.prefill(tokens(rows));
    if (rows < length || length === MAX_TILED_ROWS) {
      await afterPrompt(host, session, rows);
      return;
    }
    await session.close();
    // Once more, now that its kernels are there: the few rows before took longer each.
    rowMs = await promptMs(host, rows) / rows;
  }
}

async function promptMs(host: SessionHost, rows: number): Promise<number> {
  const session = host.open({ sparse: { budget: MIN_BUDGET, heads: "kv_head" } });
  const startMs = performance.now();
  await session.prefill(tokens(rows));
  const ms = performance.now() - startMs;
  await session.close();
  return ms;
}

async function afterPrompt(host: SessionHost, session: Session, rows: number): Promise<void> {
  const { roles } = host.runner.info;
  for (const tall of roles === undefined || rows <= PAGE_TOKENS ? [] : TALL_CORRECTIONS) {
    const again = { kind: "decode", attention: "dense", tokens: tokens(tall), from: rows - tall } as const;
    await session.run({ ...again, logits: "none" });
  }
  await session.decode(1, "dense");
  if (roles !== undefined) await session.decode(1, "sparse");
  await session.close();
}

/** Prefills, decodes and corrects once. @returns what each took */
async function run(host: SessionHost, options: SessionOptions): Promise<MeasuredStep[]> {
  const session = host.open({ ...options, sparse: { budget: MIN_BUDGET, heads: "kv_head" } });
  const measured: MeasuredStep[] = [];
  for (const { kind, span, context } of trials(host.runner.info.roles !== undefined, options.audited ?? false)) {
    const startMs = performance.now();
    await session.run(span);
    measured.push({ kind, rows: span.tokens.length, context, ms: performance.now() - startMs });
  }
  await session.close();
  return measured;
}

function trials(calibrated: boolean, audited: boolean): Trial[] {
  const row = { kind: "decode", tokens: Uint32Array.of(1), logits: "last" } as const;
  const list: Trial[] = [
    { kind: "prefill", span: { kind: "prefill", tokens: tokens(PROMPT), logits: "last" }, context: seen(0, PROMPT) },
    { kind: "dense", span: { ...row, attention: "dense" }, context: PROMPT + 1 },
  ];
  if (!calibrated) return list;
  list.push({ kind: "sparse", span: { ...row, attention: "sparse" }, context: MIN_BUDGET });
  for (const rows of CORRECTIONS) {
    const from = PROMPT + 2 - rows;
    const logits = audited ? "audit" : "none";
    const span = { kind: "decode", attention: "dense", tokens: tokens(rows), from, logits } as const;
    list.push({ kind: "correction", span, context: seen(from, rows) });
  }
  return list;
}

/** A row of each kind, all on the page of one prompt. */
async function sparseRows(host: SessionHost): Promise<void> {
  const prompt = host.open();
  await prompt.prefill(tokens(PAGE_TOKENS), "none");
  for (const sparse of SPARSE) {
    const session = host.share(prompt, PAGE_TOKENS, { sparse });
    await session.decode(1, "sparse");
    await session.close();
  }
  await prompt.close();
}

/** Positions seen by consecutive rows, summed. */
function seen(from: number, rows: number): number {
  return rows * from + rows * (rows + 1) / 2;
}

function tokens(count: number): Uint32Array {
  return new Uint32Array(count).fill(1);
}
