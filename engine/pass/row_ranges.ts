/**
 * Which worker computes which rows of a long prefill: one all rows of a batch, whose keys and values travel, or the owner of the
 * page that a row falls into, so that they do not. Knows rows and pages; knows nothing of tensors.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import type { OwnedRange } from "../exchange.ts";
import type { PageMap, PageShare } from "../page_map.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import { PAGE_TOKENS } from "../span.ts";

/** Below this many rows per worker, computing a row everywhere costs less than sending it around. */
export const MIN_SHARED_ROWS = 128;

/** Whether another worker computes all of a batch. */
export function isElsewhere({ index }: PageShare, { computer }: Pick<RowBatch, "computer">): boolean {
  return computer !== undefined && computer !== index;
}

/** The ranges of a batch; undefined: every worker computes every row. */
export function rangesOf(
  map: PageMap,
  { product, computer, rows, pieces }: Pick<RowBatch, "product" | "computer" | "rows" | "pieces">,
): readonly OwnedRange[] | undefined {
  if (computer !== undefined) return [{ first: 0, rows, owner: computer }];
  const isSplit = product === "tiled" && map.workers > 1 && rows >= MIN_SHARED_ROWS * map.workers;
  return isSplit ? rangesByOwner(map, pieces) : undefined;
}

/** By the owners of pages: ascending and without gaps; neighbours have different owners. */
function rangesByOwner(
  map: PageMap,
  pieces: readonly Pick<SequencePiece, "first" | "rows" | "from" | "sequence">[],
): OwnedRange[] {
  const ranges: { first: number; rows: number; owner: number }[] = [];
  for (const { first, rows, from, sequence: { open: { pageOffset } } } of pieces) {
    for (let done = 0; done < rows;) {
      const position = from + done;
      const count = Math.min(rows - done, PAGE_TOKENS - position % PAGE_TOKENS);
      const owner = map.owner(pageOffset, Math.floor(position / PAGE_TOKENS));
      const last = ranges.at(-1);
      if (last?.owner === owner) last.rows += count;
      else ranges.push({ first: first + done, rows: count, owner });
      done += count;
    }
  }
  return ranges;
}

/** A range that this worker computes. */
export interface OwnRange extends RowRange {
  /** Place of its first row among all rows that the worker computes. */
  readonly at: number;
}

/** The ranges that a worker computes. */
export function ownRanges(ranges: readonly OwnedRange[], worker: number): OwnRange[] {
  let at = 0;
  return ranges.filter(({ owner }) => owner === worker).map((range) => {
    const placed = { ...range, at };
    at += range.rows;
    return placed;
  });
}

/** Worker that computes a row. */
export function ownerOfRow(ranges: readonly OwnedRange[], row: number): number {
  const range = ranges.find(({ first, rows }) => row >= first && row < first + rows);
  if (range === undefined) throw new RangeError(`Cannot find the worker that computes row ${row}: no range holds it`);
  return range.owner;
}
