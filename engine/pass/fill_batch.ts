/**
 * From pieces of spans to the batch that they are: its tokens and row tables, what its rows attend to, and which of them need
 * logits. Knows positions and slots; knows nothing of which pieces go together, or of weights.
 */

import { carriedFrom } from "../../kernels/logits/carry_tokens.ts";
import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import { EngineError } from "../errors.ts";
import type { PageShare } from "../page_map.ts";
import type { BatchRow, DrawnRow, ProductFamily, RowBatch, RowRun, ScoredRow, SequencePiece } from "../row_batch.ts";
import { attendsSparsely, PAGE_TOKENS, pagesFor, type SequenceId, type SparseSettings } from "../span.ts";
import { rangesByLength } from "./length_ranges.ts";
import { isElsewhere, rangesOf } from "./row_ranges.ts";
import { longestBucket } from "./selection_buffers.ts";
import { tableRow } from "./table_row.ts";
import { type Piece, wantLogits } from "./wanted_logits.ts";

/** What rows depend on besides their spans. */
export interface RowContext {
  /** Sliding window in positions; undefined: rows see everything before them. */
  readonly window: number | undefined;
  /** The same of layers with a window of their own. @default there are none */
  readonly localWindow?: number | undefined;
  /** What this worker holds of each sequence. */
  readonly share: PageShare;
  /** Places of the tokens that the step before drew last. @default none */
  readonly drawn?: ReadonlyMap<SequenceId, number>;
}

/** How a batch is computed, and by whom. */
type BatchKind = Pick<RowBatch, "product" | "replicated" | "computer">;

/** A batch whose lists are not full yet. */
interface BatchDraft extends Omit<RowBatch, "ranges"> {
  readonly runs: RowRun[];
  readonly drawn: DrawnRow[];
  readonly scored: ScoredRow[];
  readonly sparse: BatchRow[];
  readonly pieces: SequencePiece[];
  readonly holders: boolean[];
  readonly denseHolders: boolean[];
}

/** A piece in its batch. */
interface PlacedPiece extends Piece {
  /** Row of the batch that is its first. */
  readonly at: number;
  /** What its sparse layers read; undefined: everything. */
  readonly sparse: SparseSettings | undefined;
}

/**
 * The batch of some pieces, in their order.
 * @throws {EngineError} `invalid_step` when a token is to come from the step before, which drew none
 */
export function fillBatch(kind: BatchKind, pieces: readonly Piece[], context: RowContext): RowBatch {
  const batch = emptyBatch(kind, pieces, context);
  let at = 0;
  for (const piece of pieces) {
    const { span, index, state, first, rows } = piece;
    const sparse = attendsSparsely(span) ? state.open.sparse : undefined;
    const placed = { ...piece, at, sparse };
    writeTokens(batch, placed, context);
    writeTables(batch, placed, context);
    wantLogits(batch, piece, at);
    addRun(batch.runs, runOf(kind, placed, context), kind.product);
    markHolders(piece, context, sparse === undefined ? [batch.holders, batch.denseHolders] : [batch.holders]);
    if (sparse !== undefined) batch.sparse.push({ row: at, span: index, sequence: state, position: span.from });
    const attention = sparse === undefined ? "dense" : "sparse";
    batch.pieces.push({ first: at, rows, from: span.from + first, sequence: state, attention });
    at += rows;
  }
  const runs = batch.runs.map((run) => ({ ...run, lengths: rangesByLength(run.lengths) }));
  return { ...batch, runs, ranges: rangesOf(context.share.map, batch) };
}

function emptyBatch(kind: BatchKind, pieces: readonly Piece[], { share, localWindow }: RowContext): BatchDraft {
  const rows = pieces.reduce((sum, piece) => sum + piece.rows, 0);
  const noWorker = () => Array.from({ length: share.map.workers }, () => false);
  return {
    ...kind,
    rows,
    tokens: new Uint32Array(rows),
    carries: pieces.some(endsSampled),
    positions: new Uint32Array(rows),
    table: new Uint32Array(rows * ROW_WORDS),
    localTable: localWindow === undefined ? undefined : new Uint32Array(rows * ROW_WORDS),
    runs: [],
    drawn: [],
    scored: [],
    sparse: [],
    pieces: [],
    holders: noWorker(),
    denseHolders: noWorker(),
  };
}

/** Whether the token of its last row has not left the GPU. */
function endsSampled({ span, first, rows }: Piece): boolean {
  return span.sampled === true && first + rows === span.tokens.length;
}

function writeTokens({ tokens }: BatchDraft, piece: PlacedPiece, { drawn }: RowContext): void {
  const { span: { sequence, tokens: own }, first, rows, at } = piece;
  tokens.set(own.subarray(first, first + rows), at);
  if (!endsSampled(piece)) return;
  const place = drawn?.get(sequence);
  if (place === undefined) {
    throw new EngineError(
      "invalid_step",
      `Cannot plan a sampled span of sequence ${sequence}: the step before drew nothing`,
    );
  }
  tokens[at + rows - 1] = carriedFrom(place);
}

/** What others compute needs no tables here. */
function writeTables(
  batch: BatchDraft,
  { span, state, first, rows, at, sparse }: PlacedPiece,
  { share, window, localWindow }: RowContext,
): void {
  if (isElsewhere(share, batch)) return;
  for (let i = 0; i < rows; i++) {
    const position = span.from + first + i;
    batch.positions[at + i] = position;
    writeTableRow(batch.table, at + i, tableRow(state, position, { share, window, sparse }));
    if (batch.localTable === undefined) continue;
    writeTableRow(batch.localTable, at + i, tableRow(state, position, { share, window: localWindow, sparse }));
  }
}

/** What the rows of a piece attend to, as a run of their own. */
function runOf(
  { product, replicated }: BatchKind,
  { span, state, first, rows, at, sparse }: PlacedPiece,
  { share: { map, index }, window }: RowContext,
): RowRun {
  const visited = map.localRows(index, state.open.pageOffset, span.from + first + rows);
  const longest = product === "tiled" ? visited : longestBucket(visited);
  const kept = sparse === undefined ? 0 : replicated ? sparse.budget : Math.min(sparse.budget, longest);
  const range = { first: at, rows };
  const lengths = [{ ...range, longest: Math.min(longest, window ?? Infinity) }];
  return { ...range, longest, sparse, kept, blocks: rows > 1 ? [range] : [], lengths };
}

/** Marks the workers that hold something that a piece's rows see. */
function markHolders(
  { span, state, first, rows }: Piece,
  { share: { map }, window }: RowContext,
  lists: readonly boolean[][],
): void {
  const { pageOffset } = state.open;
  const start = window === undefined ? 0 : Math.max(0, span.from + first + 1 - window);
  const pages = [Math.floor(start / PAGE_TOKENS), pagesFor(span.from + first + rows)] as const;
  for (let worker = 0; worker < map.workers; worker++) {
    const [before, after] = pages.map((page) => map.pagesBefore(worker, pageOffset, page));
    if (before !== after) { for (const list of lists) list[worker] = true; }
  }
}

/** Decode rows that attend alike form one run; a prefill run belongs to one sequence. */
function addRun(runs: RowRun[], run: RowRun, product: ProductFamily): void {
  const last = runs.at(-1);
  if (product === "tiled" || last === undefined || last.sparse?.heads !== run.sparse?.heads) {
    runs.push(run);
    return;
  }
  runs[runs.length - 1] = {
    first: last.first,
    rows: last.rows + run.rows,
    sparse: last.sparse && run.sparse && joined(last.sparse, run.sparse),
    longest: Math.max(last.longest, run.longest),
    kept: Math.max(last.kept, run.kept),
    blocks: [...last.blocks, ...run.blocks],
    lengths: [...last.lengths, ...run.lengths],
  };
}

/** What holds for rows of both. */
function joined(a: SparseSettings, b: SparseSettings): SparseSettings {
  const coverage = a.coverage ?? b.coverage;
  const budget = Math.max(a.budget, b.budget);
  return { heads: a.heads, budget, ...(coverage === undefined ? {} : { coverage }) };
}
