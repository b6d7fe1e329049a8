/**
 * From spans to rows: the host-side plan of one pass through the layers. Groups rows that are computed alike, fills the
 * row table, and says which rows need logits. Knows positions and slots; knows nothing of weights.
 */

import { carriedFrom } from "../../kernels/logits/carry_tokens.ts";
import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import { EngineError } from "../errors.ts";
import { LEAD } from "../exchange.ts";
import type { PageShare } from "../page_map.ts";
import type { Replicas } from "../kv/replicas.ts";
import { replicaPagesOf } from "../replica_plan.ts";
import type { BatchRow, DrawnRow, ProductFamily, RowBatch, RowRun, ScoredRow, SequencePiece } from "../row_batch.ts";
import { rangesByLength } from "./length_ranges.ts";
import { rangesOf, SPLIT_ROWS } from "./row_ranges.ts";
import { longestBucket, scoreStride } from "./selection_buffers.ts";
import type { SequenceState } from "../kv/sequences.ts";
import { tableRow } from "./table_row.ts";
import { type Piece, wantLogits } from "./wanted_logits.ts";
import { PAGE_TOKENS, pagesFor, type SequenceId, type Span, type SparseSettings } from "../span.ts";

/** What the plan depends on besides the spans. */
export interface BatchContext {
  /** Must hold every sequence of the spans. */
  readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
  /** Sliding window in positions; undefined: rows see everything before them. */
  readonly window: number | undefined;
  /** The same of layers with a window of their own. @default there are none */
  readonly localWindow?: number | undefined;
  /** What this worker holds of each sequence. */
  readonly share: PageShare;
  /** Most scores of one query head that the sparse rows of a batch may need: they lie in one binding. */
  readonly maxScores: number;
  /** Places of the tokens that the step before drew last. @default none */
  readonly drawn?: ReadonlyMap<SequenceId, number>;
  /** Whether dense decode rows have kernels of their own; they then share no batch with sparse ones. @default false */
  readonly matrix?: boolean;
  /** Whose sparse layers read replicas, and how many pages of these one batch may need. @default alone in a group: none */
  readonly replicas?: Pick<Replicas, "roomFor" | "pages"> | undefined;
  /** Sequences whose rows one worker may compute for all, see `whole_sequences.ts`. @default none */
  readonly whole?: ReadonlySet<SequenceId>;
}

/** Rows of a prefill that pass through the layers at once; more pass in turn, with the same bits. */
export const MAX_TILED_ROWS = 2048;

/** The same for decode rows. */
const MAX_VECTOR_ROWS = 64;

/** Chunks that workers compute apart begin at multiples of this in a prompt that does: as many rows as the products' tiles take. */
const CHUNK_STEP = 64;

/**
 * The batches of a step, in the order in which they must run: pieces of one span keep their order, decode goes first, and what one
 * worker computes for all comes last.
 */
export function planBatches(spans: readonly Span[], context: BatchContext): RowBatch[] {
  const pieces = spans.map((span, index): Piece => ({
    span,
    index,
    state: stateOf(context, span),
    first: 0,
    rows: span.tokens.length,
  }));
  const order = ({ span, state }: Piece) =>
    isSparse(span) ? ["kv_head", "query_head", "all_heads"].indexOf(state.open.sparse.heads) + 1 : 0;
  // By the whole context, not by what this worker holds of it: all workers of a group must have the same order.
  const sees = ({ span: { from, tokens } }: Piece) => longestBucket(from + tokens.length);
  const decode = pieces.filter(({ span }) => span.kind === "decode")
    .sort((a, b) => order(a) - order(b) || sees(b) - sees(a));
  const prefill = pieces.filter(({ span }) => span.kind === "prefill");
  const { matrix = false } = context;
  const isDense = ({ span }: Piece) => matrix && !isSparse(span);
  const isReplicated = (piece: Piece) => replicaPages(piece, context) > 0;
  const isWhole = ({ span }: Piece) => context.whole?.has(span.sequence) === true;
  const rows = (product: ProductFamily, pieces: readonly Piece[], replicated = false) =>
    pack(pieces, product, context).map((some) => fill({ product, replicated, computer: undefined }, some, context));
  const alone = (product: ProductFamily, pieces: readonly Piece[]) =>
    pack(pieces, product, context).map((some, index) => {
      const computer = product === "tiled" ? index % context.share.map.workers : LEAD;
      return fill({ product, replicated: false, computer }, some, context);
    });
  const [whole, others] = [decode.filter(isWhole), decode.filter((piece) => !isWhole(piece))];
  return [
    ...rows("dense", others.filter(isDense)),
    ...rows("vector", others.filter((piece) => !isDense(piece) && !isReplicated(piece))),
    ...rows("vector", others.filter(isReplicated), REPLICATED),
    ...rows("tiled", prefill.filter((piece) => !isWhole(piece))),
    ...alone("dense", whole.filter(isDense)),
    ...alone("vector", whole.filter((piece) => !isDense(piece))),
    ...alone("tiled", prefill.filter(isWhole)),
  ];
}

const REPLICATED = true;

/** Pages that the replicas of a piece's sequence take; 0 for rows whose layers exchange states. */
function replicaPages({ span, state }: Piece, { replicas }: BatchContext): number {
  const room = isSparse(span) ? replicas?.roomFor(state.open) : undefined;
  return room === undefined ? 0 : replicaPagesOf(room);
}

function stateOf({ sequences }: BatchContext, { sequence }: Span): SequenceState {
  const state = sequences.get(sequence);
  if (state === undefined) {
    throw new EngineError("invalid_step", `Cannot plan a span of sequence ${sequence}: it is not open`);
  }
  return state;
}

function placeOfDrawn({ drawn }: BatchContext, { sequence }: Span): number {
  const place = drawn?.get(sequence);
  if (place !== undefined) return place;
  throw new EngineError(
    "invalid_step",
    `Cannot plan a sampled span of sequence ${sequence}: the step before drew nothing`,
  );
}

/** Whether the token of its last row has not left the GPU. */
function endsSampled({ span, first, rows }: Piece): boolean {
  return span.sampled === true && first + rows === span.tokens.length;
}

function isSparse(span: Span): boolean {
  return span.kind === "decode" && span.attention === "sparse";
}

/** Rows of a batch at most: a long prompt that is dealt by chunks becomes as many for each worker, all of about the same length. */
function maxRowsOf(
  product: ProductFamily,
  spans: readonly Piece[],
  { share: { map: { workers } }, whole }: BatchContext,
): number {
  if (product !== "tiled") return MAX_VECTOR_ROWS;
  const rows = spans.reduce((sum, piece) => sum + piece.rows, 0);
  const isDealt = rows >= SPLIT_ROWS * workers && spans.some(({ span }) => whole?.has(span.sequence));
  if (!isDealt) return MAX_TILED_ROWS;
  const chunks = workers * Math.ceil(rows / (workers * MAX_TILED_ROWS));
  return Math.ceil(rows / chunks / CHUNK_STEP) * CHUNK_STEP;
}

/** Cuts spans into pieces and fills batches with them, in order. */
function pack(spans: readonly Piece[], product: ProductFamily, context: BatchContext): Piece[][] {
  const maxRows = maxRowsOf(product, spans, context);
  const batches: Piece[][] = [];
  let room = 0;
  let pages = 0;
  let sparseRows = 0;
  let longest = 0;
  for (const piece of spans) {
    if (isSparse(piece.span)) {
      sparseRows++;
      longest = Math.max(longest, piece.span.from + 1);
      if (sparseRows * scoreStride(longestBucket(longest)) > context.maxScores) room = 0;
    }
    const ofPiece = replicaPages(piece, context);
    pages += ofPiece;
    if (pages > (context.replicas?.pages ?? Infinity)) room = 0;
    for (let first = 0; first < piece.rows;) {
      if (room === 0) {
        batches.push([]);
        room = maxRows;
        pages = ofPiece;
        [sparseRows, longest] = isSparse(piece.span) ? [1, piece.span.from + 1] : [0, 0];
      }
      const rows = Math.min(room, piece.rows - first);
      batches.at(-1)?.push({ ...piece, first, rows });
      first += rows;
      room -= rows;
    }
  }
  return batches;
}

function fill(
  { product, replicated, computer }: Pick<RowBatch, "product" | "replicated" | "computer">,
  pieces: readonly Piece[],
  context: BatchContext,
): RowBatch {
  const rows = pieces.reduce((sum, piece) => sum + piece.rows, 0);
  const { map } = context.share;
  const batch = {
    product,
    replicated,
    computer,
    rows,
    tokens: new Uint32Array(rows),
    positions: new Uint32Array(rows),
    table: new Uint32Array(rows * ROW_WORDS),
    localTable: context.localWindow === undefined ? undefined : new Uint32Array(rows * ROW_WORDS),
    runs: [] as RowRun[],
    drawn: [] as DrawnRow[],
    scored: [] as ScoredRow[],
    sparse: [] as BatchRow[],
    carries: pieces.some(endsSampled),
    pieces: [] as SequencePiece[],
    holders: Array.from({ length: map.workers }, () => false),
    denseHolders: Array.from({ length: map.workers }, () => false),
  };
  // What others compute needs no tables here.
  const isComputed = computer === undefined || computer === context.share.index;
  let at = 0;
  for (const piece of pieces) {
    const { span, state, first } = piece;
    const sparse = isSparse(span) ? state.open.sparse : undefined;
    batch.tokens.set(span.tokens.subarray(first, first + piece.rows), at);
    if (endsSampled(piece)) batch.tokens[at + piece.rows - 1] = carriedFrom(placeOfDrawn(context, span));
    for (let i = 0; isComputed && i < piece.rows; i++) {
      const position = span.from + first + i;
      batch.positions[at + i] = position;
      writeTableRow(
        batch.table,
        at + i,
        tableRow(state, position, { share: context.share, window: context.window, sparse }),
      );
      if (batch.localTable === undefined) continue;
      const local = tableRow(state, position, { share: context.share, window: context.localWindow, sparse });
      writeTableRow(batch.localTable, at + i, local);
    }
    wantLogits(batch, piece, at);
    if (sparse !== undefined) batch.sparse.push({ row: at, span: piece.index, sequence: state, position: span.from });
    const { pageOffset } = state.open;
    const visited = map.localRows(context.share.index, pageOffset, span.from + first + piece.rows);
    const longest = product === "tiled" ? visited : longestBucket(visited);
    const kept = sparse === undefined ? 0 : replicated ? sparse.budget : Math.min(sparse.budget, longest);
    const blocks = piece.rows > 1 ? [{ first: at, rows: piece.rows }] : [];
    const range = { first: at, rows: piece.rows };
    const lengths = [{ ...range, longest: Math.min(longest, context.window ?? Infinity) }];
    addRun(batch.runs, { ...range, longest, sparse, kept, blocks, lengths }, product);
    markHolders(piece, context, sparse === undefined ? [batch.holders, batch.denseHolders] : [batch.holders]);
    const attention = sparse === undefined ? "dense" : "sparse";
    batch.pieces.push({ first: at, rows: piece.rows, from: span.from + first, sequence: state, attention });
    at += piece.rows;
  }
  const runs = batch.runs.map((run) => ({ ...run, lengths: rangesByLength(run.lengths) }));
  return { ...batch, runs, ranges: rangesOf(map, batch) };
}

/** Marks the workers that hold something that a piece's rows see. */
function markHolders(
  { span, state, first, rows }: Piece,
  { share: { map }, window }: BatchContext,
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
