/** Which rows of a batch need logits, and what for. Knows spans and rows; knows nothing of where they are computed. */

import type { SequenceState } from "../kv/sequences.ts";
import type { DrawnRow, RowBatch, ScoredRow } from "../row_batch.ts";
import { attendsSparsely, drawnRowsOf, type Span } from "../span.ts";

/** A piece of a span: consecutive rows that fall into one batch. */
export interface Piece {
  readonly span: Span;
  readonly index: number;
  readonly state: SequenceState;
  readonly first: number;
  readonly rows: number;
}

/** Which rows of a piece, that starts at row `at` of the batch, are scored or drawn after. */
export function wantLogits(
  { product, drawn, scored }: Pick<RowBatch, "product"> & { drawn: DrawnRow[]; scored: ScoredRow[] },
  { span, index, state, first, rows }: Piece,
  at: number,
): void {
  if (span.logits === "none") return;
  const audit = auditOf(span, state);
  const words = span.masks === undefined ? 0 : span.masks.length / drawnRowsOf(span);
  const head = product === "dense" ? product : "vector";
  for (let i = 0; i < rows; i++) {
    const row = at + i;
    const target = span.tokens[first + i + 1] ?? span.next;
    if (target === undefined || audit === "compare") {
      const own = audit === "compare" ? first + i : 0;
      const mask = span.masksFollow ? "late" : span.masks?.subarray(own * words, (own + 1) * words);
      drawn.push({ row, span: index, sequence: state, position: span.from + first + i, audit, mask, head });
    } else if (span.logits === "all") scored.push({ row, span: index, target });
  }
}

function auditOf(span: Span, { open }: SequenceState): DrawnRow["audit"] {
  if (span.logits === "audit") return "compare";
  return attendsSparsely(span) && open.audited ? "keep" : undefined;
}
