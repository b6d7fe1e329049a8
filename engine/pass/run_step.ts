/**
 * Computes a step that was admitted: its batches through the layers, rows to the head, and results back to their spans.
 * Knows batches and spans; knows nothing of how sequences are opened or refused.
 */

import type { Tensor } from "../../kernels/tensor.ts";
import { type Batch, planBatches } from "./batch_plan.ts";
import type { ExchangePoint } from "../exchange.ts";
import { forward, type Model } from "./forward.ts";
import { ReadTally } from "./read_counter.ts";
import { ownerOfRow, ownRanges } from "./row_ranges.ts";
import { copyRows, draw, drawnRows, type DrawnToken, score } from "../logits/sampler.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { SequenceId, SpanAudit, SpanResult, Step, StepResult } from "../span.ts";

/** The worker that draws tokens. */
const LEAD = 0;

/** Scores of one span so far, in order of its rows. */
interface SpanScores {
  readonly logprob: number[];
  readonly argmax: number[];
}

/**
 * Runs all spans of a step, and waits for the GPU.
 * @param sequences as they are once the step's sequences are opened and its tokens are known
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function compute(
  model: Model,
  step: Step,
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): Promise<StepResult> {
  const start = performance.now();
  const { commands, config } = model;
  const maxScores = Math.floor(commands.gpu.info.maxBindingBytes / (4 * config.heads));
  const { share } = model;
  const batches = planBatches(step.spans, { sequences, window: config.slidingWindow, maxScores, share });
  const drawn = batches.flatMap((batch) => batch.drawn);
  const waiting = drawnRows(model, drawn.length);
  const tally = new ReadTally(model, batches);
  const scores = step.spans.map((): SpanScores => ({ logprob: [], argmax: [] }));
  let at = 0;
  for (const [index, batch] of batches.entries()) {
    const point = { step: step.index, batch: index };
    const x = await forward(model, batch, { ...point, tally: tally.of(index) });
    const wanted = await gatherOnLead(model, { x, batch, point: { ...point, layer: config.layers } });
    if (share.index !== LEAD) continue;
    copyRows(model, { from: wanted.x, to: waiting, rows: wanted.drawn, at });
    at += batch.drawn.length;
    await keepScores(model, { x: wanted.x, batch, rows: wanted.scored, scores });
  }
  if (share.index !== LEAD) return await followed(model, step, start);
  commands.submit();
  const encoded = performance.now();
  const { tokens, beside } = await draw(model, waiting, { rows: drawn, beside: tally.requests });
  const end = performance.now();
  const rowsRead = tally.rowsRead(beside);
  const drawnBy = Map.groupBy(tokens, (_, i) => drawn[i]?.span);
  return {
    index: step.index,
    spans: step.spans.map(({ sequence, logits }, i): SpanResult => {
      const read = rowsRead.get(i);
      return {
        sequence,
        ...(logits === "audit" ? { audit: auditOf(drawnBy.get(i) ?? []) } : lastOf(drawnBy.get(i))),
        ...(logits === "all" && { scores: packed(scores[i]) }),
        ...(read !== undefined && { rowsRead: read }),
      };
    }),
    timing: { encodeMs: encoded - start, waitMs: end - encoded, totalMs: end - start },
  };
}

/** What a worker that is not the lead answers: it has computed, the lead has drawn. */
async function followed({ commands }: Model, step: Step, start: number): Promise<StepResult> {
  commands.submit();
  const encoded = performance.now();
  await commands.gpu.read([]);
  const end = performance.now();
  return {
    index: step.index,
    spans: step.spans.map(({ sequence }) => ({ sequence })),
    timing: { encodeMs: encoded - start, waitMs: end - encoded, totalMs: end - start },
  };
}

/** Rows of a batch on the lead worker, and where in them those lie that are drawn after and that are scored. */
interface WantedRows {
  readonly x: Tensor;
  readonly drawn: readonly number[];
  readonly scored: readonly number[];
}

/** Brings rows whose logits somebody wants to the lead; rows that every worker computes are there already. */
async function gatherOnLead(
  model: Model,
  { x, batch, point }: { readonly x: Tensor; readonly batch: Batch; readonly point: ExchangePoint },
): Promise<WantedRows> {
  const { commands, scratch, config, share, exchange } = model;
  const { ranges, drawn, scored } = batch;
  if (ranges === undefined) return { x, drawn: drawn.map(({ row }) => row), scored: scored.map(({ row }) => row) };
  const rows = [...drawn, ...scored].map(({ row }) => row);
  const gathered = scratch.take("rows for the lead", "f32", [rows.length, config.hidden]);
  const own = ownRanges(ranges, share.index);
  for (const [at, row] of rows.entries()) {
    const range = own.find(({ first, rows: count }) => row >= first && row < first + count);
    if (range !== undefined) copyRows(model, { from: x, to: gathered, rows: [range.at + row - range.first], at });
  }
  const owners = rows.map((row) => ownerOfRow(ranges, row));
  commands.submit();
  const sent = exchange.gatherOnLead(point, owners, { tensor: gathered, rowBytes: config.hidden * 4 });
  if (sent !== undefined) await sent;
  return { x: gathered, drawn: drawn.map((_, i) => i), scored: scored.map((_, i) => drawn.length + i) };
}

/** Scores the rows of a batch whose next token is known. */
async function keepScores(
  model: Model,
  { x, batch, rows, scores }: {
    readonly x: Tensor;
    readonly batch: Batch;
    /** Of the scored rows in `x`. */
    readonly rows: readonly number[];
    readonly scores: readonly SpanScores[];
  },
): Promise<void> {
  const scored = batch.scored.map(({ target }, i) => ({ target, row: rows[i] ?? 0 }));
  const { logprob, argmax } = await score(model, x, { rows: scored, product: batch.product });
  for (const [i, { span }] of batch.scored.entries()) {
    scores[span]?.logprob.push(logprob[i] ?? NaN);
    scores[span]?.argmax.push(argmax[i] ?? 0);
  }
}

/** What a span drew that draws after its last row alone. */
function lastOf(drawn: readonly DrawnToken[] | undefined): Pick<SpanResult, "token" | "logprobs"> {
  const last = drawn?.at(-1);
  if (last === undefined) return {};
  return { token: last.token, ...(last.logprobs && { logprobs: last.logprobs }) };
}

/** @param drawn in the order of the span's rows: pieces of a span keep it */
function auditOf(drawn: readonly DrawnToken[]): SpanAudit {
  const logprobs = drawn.flatMap(({ logprobs }) => logprobs ?? []);
  return {
    tokens: Uint32Array.from(drawn, ({ token }) => token),
    divergences: Float32Array.from(drawn, ({ divergence }) => divergence ?? NaN),
    ...(logprobs.length > 0 && { logprobs }),
  };
}

function packed(scores: SpanScores | undefined): NonNullable<SpanResult["scores"]> {
  return { logprob: Float32Array.from(scores?.logprob ?? []), argmax: Uint32Array.from(scores?.argmax ?? []) };
}
