/**
 * How long a sequence can become on the slices of a group, exactly: by the page map, since one worker may be full while
 * others are not. Pure functions over indices; knows nothing of who holds which page.
 */

import { copiedPages } from "../../engine/kv/copy_plan.ts";
import { PageMap } from "../../engine/page_map.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";
import type { ModelInfo } from "../group/group.ts";

/** Where a sequence is on the page map. */
export interface MapPlace {
  /** Entry of the map at which its first page lies. */
  readonly offset: number;
  /** Pages that it has already. */
  readonly pages: number;
}

/**
 * Pages that a sequence can have in all: up to the first one for which its owner has no room.
 * @param room further pages that each worker has for it
 */
export function pagesWithin(map: PageMap, { offset, pages }: MapPlace, room: readonly number[]): number {
  const firstLacking = room.map((more, worker) =>
    map.globalPage(worker, offset, map.pagesBefore(worker, offset, pages) + Math.max(0, more))
  );
  return Math.min(...firstLacking);
}

/** Tokens of the longest sequence that the empty slices of a group hold, from the best offset on. */
export function longestOnSlices(slices: readonly number[]): number {
  const map = new PageMap(slices);
  let longest = 0;
  for (let offset = 0; offset < map.period; offset++) {
    longest = Math.max(longest, pagesWithin(map, { offset, pages: 0 }, slices));
  }
  return longest * PAGE_TOKENS;
}

/** Tokens that one sequence can have: as many as the model was made for, and the slices of the group hold. */
export function longestContext({ maxPositions, slices }: Pick<ModelInfo, "maxPositions" | "slices">): number {
  return Math.min(maxPositions, longestOnSlices(slices));
}

/** Tokens of the longest sequence that workers copy whole, and compute in turns; undefined where none is copied. */
export function copiedContext(
  model: Pick<ModelInfo, "maxPositions" | "slices" | "copyPages">,
): number | undefined {
  const { slices, copyPages } = model;
  if (slices.length === 1 || copyPages === 0) return undefined;
  return Math.min(longestContext(model), copiedPages(slices, copyPages) * PAGE_TOKENS);
}
