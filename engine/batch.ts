/**
 * From spans to rows: the host-side plan of one pass through the layers. Groups rows that are computed alike, fills the
 * row table, and says which rows need logits. Knows positions and pages tables; knows nothing of weights.
 */

import { ROW_WORDS, writeTableRow } from "../kernels/row_table.ts";
import { EngineError } from "./errors.ts";
import type { KvSlice } from "./kv_slice.ts";
import { recentOf } from "./layer_plan.ts";
import type { Open, SequenceId, SetShape, Span } from "./span.ts";

/** What the engine remembers of an open sequence. */
export interface SequenceState {
  readonly open: Open;
  /** Token at each position, as far as spans have told; penalties count them. */
  readonly tokens: number[];
}

/** Rows of one batch that attend alike: [first, first + rows). */
export interface RowRun {
  readonly first: number;
  readonly rows: number;
  /** Sparse layers read a selection of this shape; undefined: everything. */
  readonly sparse: { readonly heads: SetShape; readonly budget: number } | undefined;
  /** Most local KV rows that any of the rows sees. */
  readonly longest: number;
}

/** A row whose logits somebody wants. */
export interface LogitsRow {
  readonly row: number;
  readonly span: number;
  /** The token that follows it in its span: it is scored. Undefined for the last row, after which one is drawn. */
  readonly target: number | undefined;
}

/** Rows that pass through the layers together, with the products of one family. */
export interface Batch {
  readonly product: "tiled" | "vector";
  readonly rows: number;
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly positions: Uint32Array<ArrayBuffer>;
  readonly table: Uint32Array<ArrayBuffer>;
  readonly runs: readonly RowRun[];
  /** In the order of the spans. */
  readonly logits: readonly LogitsRow[];
}

/** Rows of a prefill that pass through the layers at once; more pass in turn, with the same bits. */
const MAX_TILED_ROWS = 512;

/** The same for decode rows. */
const MAX_VECTOR_ROWS = 64;

/** A piece of a span: consecutive rows that fall into one batch. */
interface Piece {
  readonly span: Span;
  readonly index: number;
  readonly first: number;
  readonly rows: number;
}

/**
 * The batches of a step, in the order in which they must run: pieces of one span keep their order, decode goes first.
 * @param sequences must hold every sequence of the spans
 */
export function planBatches(
  spans: readonly Span[],
  context: {
    readonly slice: KvSlice;
    readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
    readonly window: number | undefined;
  },
): Batch[] {
  const indexed = spans.map((span, index) => ({ span, index }));
  const attentionOrder = (span: Span) => {
    if (span.kind === "prefill" || span.attention === "dense") return 0;
    return { kv_head: 1, query_head: 2, all_heads: 3 }[sequenceOf(context.sequences, span).open.sparse.heads];
  };
  const decode = indexed
    .filter(({ span }) => span.kind === "decode")
    .sort((a, b) => attentionOrder(a.span) - attentionOrder(b.span) || a.index - b.index);
  const prefill = indexed.filter(({ span }) => span.kind === "prefill");
  return [
    ...pack(decode, MAX_VECTOR_ROWS).map((pieces) => fillBatch("vector", pieces, context)),
    ...pack(prefill, MAX_TILED_ROWS).map((pieces) => fillBatch("tiled", pieces, context)),
  ];
}

function sequenceOf(sequences: ReadonlyMap<SequenceId, SequenceState>, span: Span): SequenceState {
  const sequence = sequences.get(span.sequence);
  if (sequence === undefined) {
    throw new EngineError("invalid_step", `Cannot run a span of sequence ${span.sequence}: it is not open`);
  }
  return sequence;
}

/** Cuts spans into pieces and fills batches with them, in order. */
function pack(spans: readonly { readonly span: Span; readonly index: number }[], maxRows: number): Piece[][] {
  const batches: Piece[][] = [];
  let room = 0;
  for (const { span, index } of spans) {
    for (let first = 0; first < span.tokens.length;) {
      if (room === 0) {
        batches.push([]);
        room = maxRows;
      }
      const rows = Math.min(room, span.tokens.length - first);
      batches.at(-1)?.push({ span, index, first, rows });
      first += rows;
      room -= rows;
    }
  }
  return batches;
}

function fillBatch(
  product: "tiled" | "vector",
  pieces: readonly Piece[],
  { slice, sequences, window }: Parameters<typeof planBatches>[1],
): Batch {
  const rows = pieces.reduce((sum, piece) => sum + piece.rows, 0);
  const tokens = new Uint32Array(rows);
  const positions = new Uint32Array(rows);
  const table = new Uint32Array(rows * ROW_WORDS);
  const logits: LogitsRow[] = [];
  const runs: RowRun[] = [];
  let at = 0;
  for (const { span, index, first, rows: count } of pieces) {
    const { open } = sequenceOf(sequences, span);
    const sparse = span.kind === "decode" && span.attention === "sparse" ? open.sparse : undefined;
    const sequenceSlot = slice.slotOf(span.sequence);
    tokens.set(span.tokens.subarray(first, first + count), at);
    for (let i = 0; i < count; i++) {
      const position = span.from + first + i;
      positions[at + i] = position;
      writeTableRow(table, at + i, {
        sequenceSlot,
        position,
        kvFrom: window === undefined ? 0 : Math.max(0, position + 1 - window),
        kvLimit: position + 1,
        appendRow: position,
        selected: sparse?.budget ?? 0,
        setShape: sparse?.heads ?? "kv_head",
        recent: sparse === undefined ? 0 : recentOf(sparse.budget),
      });
      const target = span.tokens[first + i + 1] ?? span.next;
      const wanted = span.logits === "all" || (span.logits === "last" && target === undefined);
      if (wanted) logits.push({ row: at + i, span: index, target });
    }
    addRun(runs, { first: at, rows: count, sparse, longest: span.from + first + count }, product);
    at += count;
  }
  return { product, rows, tokens, positions, table, runs, logits };
}

/** Decode rows that attend alike form one run; a prefill run belongs to one sequence. */
function addRun(runs: RowRun[], run: RowRun, product: "tiled" | "vector"): void {
  const last = runs.at(-1);
  if (product === "tiled" || last === undefined || last.sparse?.heads !== run.sparse?.heads) {
    runs.push(run);
    return;
  }
  runs[runs.length - 1] = {
    first: last.first,
    rows: last.rows + run.rows,
    sparse: last.sparse && run.sparse
      ? { heads: last.sparse.heads, budget: Math.max(last.sparse.budget, run.sparse.budget) }
      : undefined,
    longest: Math.max(last.longest, run.longest),
  };
}
