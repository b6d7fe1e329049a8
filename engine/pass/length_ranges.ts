/**
 * Rows of a run by how many KV rows they see: a dispatch has as many splits for every row as its longest row needs, so that one
 * long row among many short ones is dispatched apart from them. Knows counts; changes no bits.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import { SPLIT_ROWS } from "../../kernels/attention/split/split_cut.ts";

/** Consecutive rows that are attended by one dispatch where everything is read. */
export interface LengthRange extends RowRange {
  /** At least as many local KV rows as any of them sees; a rounded number. */
  readonly longest: number;
}

/**
 * Splits without KV rows, for all heads of a row together, that one more dispatch and the merge after it are worth. A GPU
 * starts about a thousand workgroups in a microsecond, 8 of them for such a split of an 8B model, and a dispatch that waits for the
 * one before takes 2 to 4.
 */
const MIN_EMPTY_SPLITS = 512;

/**
 * Cuts rows, in order, into ranges of about the same length: where the rows after a cut see at most half as much as those
 * before it, and as much is saved as a dispatch costs.
 * @param pieces rows in order, the longest first for best results
 */
export function rangesByLength(pieces: readonly LengthRange[]): LengthRange[] {
  const ranges: LengthRange[] = [];
  for (const [i, piece] of pieces.entries()) {
    const last = ranges.at(-1);
    if (last === undefined || isWorthACut(last, pieces.slice(i))) ranges.push(piece);
    else {
      const longest = Math.max(last.longest, piece.longest);
      ranges[ranges.length - 1] = { first: last.first, rows: last.rows + piece.rows, longest };
    }
  }
  return ranges;
}

function isWorthACut(before: LengthRange, after: readonly LengthRange[]): boolean {
  const longest = Math.max(...after.map((piece) => piece.longest));
  const rows = after.reduce((sum, piece) => sum + piece.rows, 0);
  const saved = rows * Math.floor((before.longest - longest) / SPLIT_ROWS);
  return 2 * longest <= before.longest && saved >= MIN_EMPTY_SPLITS;
}
