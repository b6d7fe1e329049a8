/**
 * From spans to batches: the host-side plan of one pass through the layers. Groups rows that are computed alike, in the order
 * in which they must run; `fill_batch.ts` makes their tables. Knows spans and pages; knows nothing of weights.
 */

import { EngineError } from "../errors.ts";
import { LEAD } from "../exchange.ts";
import type { Replicas } from "../kv/replicas.ts";
import { replicaPagesOf } from "../replica_plan.ts";
import type { ProductFamily, RowBatch } from "../row_batch.ts";
import { fillBatch, type RowContext } from "./fill_batch.ts";
import { MIN_SHARED_ROWS } from "./row_ranges.ts";
import { longestBucket, scoreStride } from "./selection_buffers.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { Piece } from "./wanted_logits.ts";
import { attendsSparsely, type SequenceId, type Span } from "../span.ts";

/** What the plan depends on besides the spans. */
export interface BatchContext extends RowContext {
  /** Must hold every sequence of the spans. */
  readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
  /** Most scores of one query head that the sparse rows of a batch may need: they lie in one binding. */
  readonly maxScores: number;
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
 * worker computes for all comes last, prompts before rows that decode (`run_batches.ts`).
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
    attendsSparsely(span) ? ["kv_head", "query_head", "all_heads"].indexOf(state.open.sparse.heads) + 1 : 0;
  // By the whole context, not by what this worker holds of it: all workers of a group must have the same order.
  const sees = ({ span: { from, tokens } }: Piece) => longestBucket(from + tokens.length);
  const decode = pieces.filter(({ span }) => span.kind === "decode")
    .sort((a, b) => order(a) - order(b) || sees(b) - sees(a));
  const prefill = pieces.filter(({ span }) => span.kind === "prefill");
  const { matrix = false } = context;
  const isDense = ({ span }: Piece) => matrix && !attendsSparsely(span);
  const isReplicated = (piece: Piece) => replicaPages(piece, context) > 0;
  const isWhole = ({ span }: Piece) => context.whole?.has(span.sequence) === true;
  const rows = (product: ProductFamily, pieces: readonly Piece[], replicated = false) =>
    pack(pieces, product, context).map((some) =>
      fillBatch({ product, replicated, computer: undefined }, some, context)
    );
  const alone = (product: ProductFamily, pieces: readonly Piece[]) =>
    pack(pieces, product, context).map((some, index) => {
      const computer = product === "tiled" ? index % context.share.map.workers : LEAD;
      return fillBatch({ product, replicated: false, computer }, some, context);
    });
  const [whole, others] = [decode.filter(isWhole), decode.filter((piece) => !isWhole(piece))];
  return [
    ...rows("dense", others.filter(isDense)),
    ...rows("vector", others.filter((piece) => !isDense(piece) && !isReplicated(piece))),
    ...rows("vector", others.filter(isReplicated), REPLICATED),
    ...rows("tiled", prefill.filter((piece) => !isWhole(piece))),
    ...alone("tiled", prefill.filter(isWhole)),
    ...alone("vector", whole.filter((piece) => !isDense(piece))),
    ...alone("dense", whole.filter(isDense)),
  ];
}

const REPLICATED = true;

/** Pages that the replicas of a piece's sequence take; 0 for rows whose layers exchange states. */
function replicaPages({ span, state }: Piece, { replicas }: BatchContext): number {
  const room = attendsSparsely(span) ? replicas?.roomFor(state.open) : undefined;
  return room === undefined ? 0 : replicaPagesOf(room);
}

function stateOf({ sequences }: BatchContext, { sequence }: Span): SequenceState {
  const state = sequences.get(sequence);
  if (state === undefined) {
    throw new EngineError("invalid_step", `Cannot plan a span of sequence ${sequence}: it is not open`);
  }
  return state;
}

/** Rows of a batch at most: a long prompt that is dealt by chunks becomes as many for each worker, all of about the same length. */
function maxRowsOf(
  product: ProductFamily,
  spans: readonly Piece[],
  { share: { map: { workers } }, whole }: BatchContext,
): number {
  if (product !== "tiled") return MAX_VECTOR_ROWS;
  const rows = spans.reduce((sum, piece) => sum + piece.rows, 0);
  const isDealt = rows >= MIN_SHARED_ROWS * workers && spans.some(({ span }) => whole?.has(span.sequence));
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
    if (attendsSparsely(piece.span)) {
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
        [sparseRows, longest] = attendsSparsely(piece.span) ? [1, piece.span.from + 1] : [0, 0];
      }
      const rows = Math.min(room, piece.rows - first);
      batches.at(-1)?.push({ ...piece, first, rows });
      first += rows;
      room -= rows;
    }
  }
  return batches;
}
