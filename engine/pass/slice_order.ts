/**
 * In which order the slices of a whole sequence hold its positions, for one worker that chooses among all of them without the
 * others. Knows pages; knows nothing of scores.
 */

import { pagePlace } from "../../kernels/attention/deal_positions.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { pagesFor } from "../span.ts";

/** See the top of this file. */
export interface SliceOrder {
  /** By worker: u32 [pieces, maxPages], the page of the sequence that each of the slice's is. */
  readonly pages: readonly Tensor[];
  /** u32 [pieces, maxPages]: by page of the sequence, see `pagePlace`. */
  readonly places: Tensor;
  readonly maxPages: number;
}

/** @param maxPages width of the tables, a multiple of 64, so that each can be bound by itself */
export function uploadSliceOrder(
  { commands, scratch, share: { map } }: LoadedModel,
  { pieces }: Pick<RowBatch, "pieces">,
  maxPages: number,
): SliceOrder {
  const tableWords = pieces.length * maxPages;
  const words = new Uint32Array((map.workers + 1) * tableWords);
  for (const [number, { sequence: { open: { pageOffset } }, from, rows }] of pieces.entries()) {
    const next = Array.from({ length: map.workers }, () => 0);
    for (let page = 0; page < pagesFor(from + rows); page++) {
      const owner = map.owner(pageOffset, page);
      const local = next[owner] ?? 0;
      next[owner] = local + 1;
      words[owner * tableWords + number * maxPages + local] = page;
      words[map.workers * tableWords + number * maxPages + page] = pagePlace(owner, local);
    }
  }
  const whole = scratch.take("order of slices", "u32", [map.workers + 1, pieces.length, maxPages]);
  commands.write(whole, words);
  const table = (index: number): Tensor => ({
    ...whole,
    byteOffset: whole.byteOffset + index * tableWords * 4,
    byteLength: tableWords * 4,
    shape: [pieces.length, maxPages],
  });
  const pages = Array.from({ length: map.workers }, (_, owner) => table(owner));
  return { pages, places: table(map.workers), maxPages };
}
