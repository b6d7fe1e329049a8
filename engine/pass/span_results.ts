/** What the spans of a step ask for, put together on the lead: tokens drawn, audits, scores, and rows read. */

import { at } from "../../kernels/at.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { copyRows } from "../logits/head.ts";
import type { DrawnToken, Draws } from "../logits/sampler.ts";
import { score } from "../logits/score.ts";
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

/** Takes the rows of one batch after the other; draws for all of them at the end, which is one read-back. */
export class SpanResults {
  readonly #model: LoadedModel;
  readonly #spans: readonly Span[];
  /** Of all batches, in their order. */
  readonly #drawn: readonly DrawnRow[];
  readonly #draws: Draws;
  readonly #scores: readonly SpanScores[];
  readonly #lastBatch: RowBatch | undefined;
  /** f32 [≥ drawn, hidden]: the rows to draw after. */
  #waiting: Tensor;
  #waitingRows = 0;

  /** @param draws of the rows that the batches draw after, in their order */
  constructor(model: LoadedModel, { spans, batches, draws }: {
    readonly spans: readonly Span[];
    readonly batches: readonly RowBatch[];
    readonly draws: Draws;
  }) {
    this.#model = model;
    this.#spans = spans;
    this.#drawn = batches.flatMap(({ drawn }) => drawn);
    this.#draws = draws;
    this.#lastBatch = batches.at(-1);
    this.#waiting = model.scratch.take("drawn rows", "f32", [this.#drawn.length, model.config.hidden]);
    this.#scores = spans.map(() => ({ logprob: [], argmax: [] }));
  }

  /** Keeps the rows of a batch that are drawn after, and scores those whose next token is known. */
  async add(batch: RowBatch, { x, drawn, scored }: WantedRows): Promise<void> {
    const hasAll = drawn.length === this.#drawn.length && drawn.every((row, i) => row === i);
    // They need not be copied where nothing else is computed before the draws: batches of one family share their memory.
    if (hasAll && batch === this.#lastBatch) this.#waiting = x;
    else copyRows(this.#model, { from: x, to: this.#waiting, rows: drawn, firstRow: this.#waitingRows });
    this.#waitingRows += drawn.length;
    const rows = batch.scored.map(({ target }, i) => ({ target, row: at(scored, i) }));
    const { logprob, argmax } = await score(this.#model, x, { rows, product: batch.product });
    for (const [i, { span }] of batch.scored.entries()) {
      this.#scores[span]?.logprob.push(at(logprob, i));
      this.#scores[span]?.argmax.push(at(argmax, i));
    }
  }

  /** Records the draws, once all batches were added. */
  async draw(): Promise<void> {
    await this.#draws.record(this.#waiting);
  }

  /** What must be read back for `finish`. */
  requests(
    { counter, report }: { readonly counter: ReadCounter; readonly report: SelectionReport },
  ): readonly ReadRequest[] {
    return [...this.#draws.requests, ...counter.requests, ...report.requests];
  }

  /**
   * @param bytes what was read for `requests`
   * @returns one result for each span, in the order of the spans
   */
  finish(
    { counter, report }: { readonly counter: ReadCounter; readonly report: SelectionReport },
    bytes: readonly Uint8Array<ArrayBuffer>[],
  ): SpanResult[] {
    const drawn = this.#draws.requests.length;
    const counted = drawn + counter.requests.length;
    const tokens = this.#draws.tokensOf(bytes.slice(0, drawn));
    const rowsRead = counter.rowsRead(bytes.slice(drawn, counted));
    const selections = report.selections(bytes.slice(counted));
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
