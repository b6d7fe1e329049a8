/**
 * From residual rows to tokens: final norm, head, adjustments, the draw, and log-probabilities for those who asked.
 * Knows rows and settings; keeps no state between steps.
 */

import { adjustLogits, ADJUSTMENT_WORDS, packAdjustments } from "../../kernels/logits/adjust_logits.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import { maskLogits, maskWords } from "../../kernels/logits/mask_logits.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { packSampling, sample, SAMPLING_WORDS } from "../../kernels/logits/sample.ts";
import { f32Of, u32Of } from "../../kernels/read_back.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { tokenScores } from "../../kernels/logits/token_scores.ts";
import type { DrawnRow, ProductFamily, ScoredRow } from "../row_batch.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { multiply } from "../pass/products.ts";
import { bestTokens, logSumExp } from "./logprobs.ts";
import { adjustmentsAt } from "./penalties.ts";
import type { TokenLogprobs } from "../span.ts";

/** Rows of logits made at once when every row of a span is scored or drawn after; bounds memory, not results. */
const LOGIT_ROWS = 64;

/** What a draw gives. */
export interface DrawnToken {
  readonly token: number;
  readonly logprobs: TokenLogprobs | undefined;
  /** KL(row ‖ sparse row) in nats, of an audited row that a sparse one waited for. */
  readonly divergence: number | undefined;
}

/** Log-probability and argmax of scored rows, in their order. */
export interface RowScores {
  readonly logprob: Float32Array;
  readonly argmax: Uint32Array;
}

/** Rows to draw after, and what else to read back at the same time, as each read-back waits for everything. */
interface Drawing {
  readonly rows: readonly Undecided[];
  readonly beside?: readonly ReadRequest[];
}

/** In the order of what was asked. */
interface Drawn {
  readonly tokens: readonly DrawnToken[];
  readonly beside: readonly Uint8Array<ArrayBuffer>[];
}

/** A row whose logits decide its next token. */
type Undecided = Pick<DrawnRow, "sequence" | "position" | "audit" | "mask" | "head">;

/** Where rows wait for the head: f32 [capacity, hidden]. */
export function drawnRows({ scratch, config }: LoadedModel, capacity: number): Tensor {
  return scratch.take("drawn rows", "f32", [capacity, config.hidden]);
}

/**
 * Draws one token after each row; waits for the GPU, also when there are no rows.
 * @param x f32 [rows.length, hidden], before the final norm
 */
export async function draw(model: LoadedModel, x: Tensor, { rows, beside = [] }: Drawing): Promise<Drawn> {
  if (rows.length === 0) return { tokens: [], beside: await model.commands.gpu.read(beside) };
  const tokens: DrawnToken[] = [];
  const read: Uint8Array<ArrayBuffer>[] = [];
  for (let first = 0; first < rows.length;) {
    const some = blockAt(rows, first);
    const block = first === 0 ? x : model.scratch.take("drawn block", "f32", [LOGIT_ROWS, model.config.hidden]);
    if (first > 0) copyRows(model, { from: x, to: block, rows: some.map((_, i) => first + i) });
    const drawn = await drawBlock(model, block, { rows: some, beside: first === 0 ? beside : [] });
    tokens.push(...drawn.tokens);
    read.push(...drawn.beside);
    first += some.length;
  }
  return { tokens, beside: read };
}

/** The rows from `first` on that one product of the head serves. */
function blockAt(rows: readonly Undecided[], first: number): readonly Undecided[] {
  const block = rows.slice(first, first + LOGIT_ROWS);
  const end = block.findIndex(({ head }) => head !== block[0]?.head);
  return end < 0 ? block : block.slice(0, end);
}

async function drawBlock(model: LoadedModel, x: Tensor, { rows, beside }: Required<Drawing>): Promise<Drawn> {
  const { commands, scratch, config: { vocabSize } } = model;
  const logits = headLogits(model, { x, rows: rows.length, product: rows[0]?.head ?? "vector", name: "logits" });
  mask(model, logits, rows);
  const raw = rows.flatMap(({ sequence }, i) => (sequence.open.sampling.topLogprobs === undefined ? [] : [i]));
  const rowBytes = vocabSize * 4;
  const kept = scratch.take("raw logits", "f32", [raw.length, vocabSize]);
  raw.forEach((row, i) =>
    commands.copy(logits, kept, { from: row * rowBytes, to: i * rowBytes, byteLength: rowBytes })
  );
  const { compared, divergences } = audit(model, logits, rows);
  adjust(model, logits, rows);
  const tokens = sampleRows(model, logits, rows);
  const [tokenBytes, rawBytes, divergenceBytes, ...besideBytes] = await commands.gpu.read([
    { tensor: tokens, byteLength: rows.length * 4 },
    { tensor: kept, byteLength: raw.length * rowBytes },
    { tensor: divergences, byteLength: compared.length * 4 },
    ...beside,
  ]);
  const drawn = u32Of(tokenBytes);
  const rawLogits = f32Of(rawBytes);
  const divergence = f32Of(divergenceBytes);
  const divergenceOf = new Map(compared.map((row, i) => [row, divergence[i]]));
  const tokensDrawn = rows.map(({ sequence }, row): DrawnToken => {
    const token = drawn[row] ?? 0;
    const { topLogprobs } = sequence.open.sampling;
    const place = raw.indexOf(row);
    const own = rawLogits.subarray(place * vocabSize, (place + 1) * vocabSize);
    const logprobs = topLogprobs === undefined ? undefined : logprobsOf(own, token, topLogprobs);
    return { token, logprobs, divergence: divergenceOf.get(row) };
  });
  return { tokens: tokensDrawn, beside: besideBytes };
}

/** Before anything looks at the logits: what a grammar forbids is no part of the distribution. */
function mask(
  { commands, scratch, config: { vocabSize } }: LoadedModel,
  logits: Tensor,
  rows: readonly Undecided[],
): void {
  const masked = rows.flatMap(({ mask }, row) => (mask === undefined ? [] : [{ row, mask }]));
  if (masked.length === 0) return;
  const words = maskWords(vocabSize);
  const packed = new Uint32Array(masked.length * words);
  masked.forEach(({ mask }, i) => packed.set(mask, i * words));
  const places = scratch.take("masked rows", "u32", [masked.length]);
  const masks = scratch.take("masks", "u32", [masked.length, words]);
  commands.write(places, Uint32Array.from(masked, ({ row }) => row));
  commands.write(masks, packed);
  maskLogits(commands, { logits, rows: places, masks, count: masked.length, vocabulary: vocabSize });
}

/**
 * Compares the logits of rows, as they come from the head, with those that wait for them, and keeps others.
 * @returns rows that something waited for, and their divergences, f32 [their number]
 */
function audit(
  { drafts }: LoadedModel,
  logits: Tensor,
  rows: readonly Undecided[],
): { readonly compared: readonly number[]; readonly divergences: Tensor } {
  const placed = (kind: Undecided["audit"]) =>
    rows.flatMap(({ sequence: { open: { sequence } }, position, audit }, row) =>
      audit === kind ? [{ row, sequence, position }] : []
    );
  const audited = placed("compare");
  const { indices, divergences } = drafts.compare(logits, audited);
  drafts.keep(logits, placed("keep"));
  return { compared: indices.map((index) => audited[index]?.row ?? 0), divergences };
}

/** @returns u32 [rows.length] */
function sampleRows({ commands, scratch, config }: LoadedModel, logits: Tensor, rows: readonly Undecided[]): Tensor {
  const sampling = scratch.take("sampling", "u32", [rows.length, SAMPLING_WORDS]);
  const tokens = scratch.take("drawn tokens", "u32", [rows.length]);
  const packed = packSampling(rows.map(({ sequence: { open }, position }) => ({
    ...open.sampling,
    outputIndex: position + 1 - open.promptTokens,
  })));
  commands.write(sampling, packed);
  sample(commands, { logits, sampling, tokens, rows: rows.length, vocabulary: config.vocabSize });
  commands.submit();
  return tokens;
}

/**
 * Scores rows against the tokens that follow them; waits for the GPU.
 * @param x f32 [≥ rows, hidden]: the residual rows of a batch
 * @param rows those of the batch that are scored
 * @param product the family of the batch
 */
export async function score(
  model: LoadedModel,
  x: Tensor,
  { rows, product }: {
    readonly rows: readonly Pick<ScoredRow, "row" | "target">[];
    readonly product: ProductFamily;
  },
): Promise<RowScores> {
  const { commands, scratch, config } = model;
  const logprob = new Float32Array(rows.length);
  const argmax = new Uint32Array(rows.length);
  for (let first = 0; first < rows.length; first += LOGIT_ROWS) {
    const block = rows.slice(first, first + LOGIT_ROWS);
    const gathered = scratch.take("scored rows", "f32", [LOGIT_ROWS, config.hidden]);
    copyRows(model, { from: x, to: gathered, rows: block.map(({ row }) => row) });
    const logits = headLogits(model, { x: gathered, rows: block.length, product, name: "scored logits" });
    const targets = scratch.take("targets", "u32", [LOGIT_ROWS]);
    const scores = scratch.take("token scores", "f32", [LOGIT_ROWS, 2]);
    const best = scratch.take("best tokens", "u32", [LOGIT_ROWS]);
    commands.write(targets, Uint32Array.from(block, ({ target }) => target));
    tokenScores(commands, { logits, targets, scores, best, rows: block.length, vocabulary: config.vocabSize });
    commands.submit();
    const [scoreBytes, bestBytes] = await commands.gpu.read([
      { tensor: scores, byteLength: block.length * 8 },
      { tensor: best, byteLength: block.length * 4 },
    ]);
    const pairs = f32Of(scoreBytes);
    for (let i = 0; i < block.length; i++) logprob[first + i] = pairs[2 * i] ?? NaN;
    argmax.set(u32Of(bestBytes), first);
  }
  return { logprob, argmax };
}

/** Copies rows of f32 [·, hidden] to the consecutive rows of another tensor, from row `at` on. */
export function copyRows(
  { commands, config }: LoadedModel,
  { from, to, rows, at = 0 }: {
    readonly from: Tensor;
    readonly to: Tensor;
    readonly rows: readonly number[];
    readonly at?: number;
  },
): void {
  const rowBytes = config.hidden * 4;
  for (let i = 0; i < rows.length;) {
    const first = rows[i] ?? 0;
    let count = 1;
    while (rows[i + count] === first + count) count++;
    commands.copy(from, to, { from: first * rowBytes, to: (at + i) * rowBytes, byteLength: count * rowBytes });
    i += count;
  }
}

function headLogits(
  { commands, scratch, config, weights }: LoadedModel,
  { x, rows, product, name }: { x: Tensor; rows: number; product: ProductFamily; name: string },
): Tensor {
  const normed = scratch.take(`normed for ${name}`, "f32", [rows, config.hidden]);
  rmsNorm(commands, {
    x,
    weight: weights.finalNorm,
    out: normed,
    rows,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const logits = scratch.take(name, "f32", [rows, config.vocabSize]);
  multiply(commands, product, { weight: weights.head, x: normed, y: logits, rows, scratch });
  return logits;
}

function adjust(
  { commands, scratch, config }: LoadedModel,
  logits: Tensor,
  rows: readonly Undecided[],
): void {
  const entries = rows.flatMap(({ sequence, position }, row) =>
    adjustmentsAt(sequence, position).map((adjustment) => ({ row, ...adjustment }))
  );
  if (entries.length === 0) return;
  const table = scratch.take("adjustments", "u32", [entries.length, ADJUSTMENT_WORDS]);
  commands.write(table, packAdjustments(entries));
  adjustLogits(commands, {
    logits,
    adjustments: table,
    count: entries.length,
    rows: rows.length,
    vocabulary: config.vocabSize,
  });
}

function logprobsOf(logits: Float32Array, token: number, top: number): TokenLogprobs {
  const lse = logSumExp(logits);
  return {
    logprob: (logits[token] ?? 0) - lse,
    top: bestTokens(logits, top).map((best) => ({ token: best, logprob: (logits[best] ?? 0) - lse })),
  };
}
