/** What the spans of a step ask for, put together on the lead: tokens drawn, audits, scores, and rows read. */

import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { copyRows, draw, drawnRows, type DrawnToken, score } from "../logits/sampler.ts";
import type { DrawnRow, RowBatch } from "../row_batch.ts";
import type { Span, SpanAudit, SpanResult } from "../span.ts";
import type { ReadCounter } from "./read_counter.ts";
import type { SelectionReport } from "./selection_report.ts";

/** Rows of a batch on the lead, and where in them those lie that are drawn after and that are scored. */
export interface WantedRows {
  /** f32 [rows, hidden], before the final norm. */
  readonly x: Tensor;
  readonly drawn: readonly number[];
  readonly scored: readonly number[];
}

/** Scores of one span so far, in the order of its rows. */
interface SpanScores {
  readonly logprob: number[];
  readonly argmax: number[];
}

/** Takes the rows of one batch after the other; draws for all of them at the end, which is one wait for the GPU. */
export class SpanResults {
  readonly #model: LoadedModel;
  readonly #spans: readonly Span[];
  /** Of all batches, in their order. */
  readonly #drawn: readonly DrawnRow[];
  /** f32 [drawn, hidden]: the rows to draw after. */
  readonly #waiting: Tensor;
  readonly #scores: readonly SpanScores[];
  #waitingRows = 0;

  constructor(model: LoadedModel, spans: readonly Span[], batches: readonly RowBatch[]) {
    this.#model = model;
    this.#spans = spans;
    this.#drawn = batches.flatMap(({ drawn }) => drawn);
    this.#waiting = drawnRows(model, this.#drawn.length);
    this.#scores = spans.map(() => ({ logprob: [], argmax: [] }));
  }

  /** Keeps the rows of a batch that are drawn after, and scores those whose next token is known. */
  async add(batch: RowBatch, { x, drawn, scored }: WantedRows): Promise<void> {
    copyRows(this.#model, { from: x, to: this.#waiting, rows: drawn, at: this.#waitingRows });
    this.#waitingRows += drawn.length;
    const rows = batch.scored.map(({ target }, i) => ({ target, row: scored[i] ?? 0 }));
    const { logprob, argmax } = await score(this.#model, x, { rows, product: batch.product });
    for (const [i, { span }] of batch.scored.entries()) {
      this.#scores[span]?.logprob.push(logprob[i] ?? NaN);
      this.#scores[span]?.argmax.push(argmax[i] ?? 0);
    }
  }

  /**
   * Draws, and waits for the GPU.
   * @returns one result for each span, in the order of the spans
   */
  async finish(counter: ReadCounter, report: SelectionReport): Promise<SpanResult[]> {
    const requests = [...counter.requests, ...report.requests];
    const { tokens, beside } = await draw(this.#model, this.#waiting, { rows: this.#drawn, beside: requests });
    const counted = counter.requests.length;
    const rowsRead = counter.rowsRead(beside.slice(0, counted));
    const selections = report.selections(beside.slice(counted));
    const drawnBySpan = Map.groupBy(tokens, (_, i) => this.#drawn[i]?.span);
    return this.#spans.map(({ sequence, logits }, i): SpanResult => {
      const drawn = drawnBySpan.get(i) ?? [];
      const read = rowsRead.get(i);
      const selected = selections.get(i);
      return {
        sequence,
        ...(logits === "audit" ? { audit: auditOf(drawn) } : lastOf(drawn)),
        ...(logits === "all" && { scores: packed(this.#scores[i]) }),
        ...(read !== undefined && { rowsRead: read }),
        ...(selected !== undefined && { selections: selected }),
      };
    });
  }
}

/** What a span drew that draws after its last row alone. */
function lastOf(drawn: readonly DrawnToken[]): Pick<SpanResult, "token" | "logprobs"> {
  const last = drawn.at(-1);
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
