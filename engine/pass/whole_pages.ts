/**
 * Where all pages of a batch's sequences lie on this worker, its own and the copies of the others', in the order of positions:
 * what appends a row of a copied sequence, or sends one, need not know who owns it. Knows pages; knows nothing of rows.
 */

import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { SequencePiece } from "../row_batch.ts";
import { pagesFor } from "../span.ts";

/** Widths of tables of copied pages are multiples of this. */
const TABLE_PAGES = 64;

/** A page table of all pages. */
export interface WholePages {
  /** u32 [pieces, maxPages]: by piece of the batch, physical pages of this worker. */
  readonly table: Tensor;
  readonly maxPages: number;
}

/** Pages of a table that has room for those of all pieces. */
export function tableWidthOf(pieces: readonly SequencePiece[]): number {
  const pages = Math.max(...pieces.map(({ from, rows }) => pagesFor(from + rows)));
  // Programs hold for steps whose tables are as wide, and for as long as the table need not grow.
  return Math.ceil(pages / TABLE_PAGES) * TABLE_PAGES;
}

/**
 * Uploads where the pages lie, all of which must be copied.
 * @param name of the working memory
 */
export function uploadWholePages(
  { commands, scratch, replicas, share: { map, index } }: LoadedModel,
  pieces: readonly SequencePiece[],
  name: string,
): WholePages {
  const maxPages = tableWidthOf(pieces);
  const words = new Uint32Array(pieces.length * maxPages);
  for (const [number, { sequence: { open, physicalPages }, from, rows }] of pieces.entries()) {
    const copies = Array.from(
      { length: map.workers },
      (_, owner) => replicas?.copies?.placesOf(open.sequence, owner) ?? [],
    );
    const next = copies.map(() => 0);
    for (let page = 0; page < pagesFor(from + rows); page++) {
      const owner = map.owner(open.pageOffset, page);
      const nth = next[owner] ?? 0;
      next[owner] = nth + 1;
      const own = (physicalPages[page] ?? 0) - map.base(index);
      words[number * maxPages + page] = owner === index ? own : copies[owner]?.[nth] ?? 0;
    }
  }
  const table = scratch.take(name, "u32", [pieces.length, maxPages]);
  commands.write(table, words);
  return { table, maxPages };
}
