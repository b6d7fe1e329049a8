/** How much memory the states of splits take until they are merged. Knows counts; whose memory it is, callers say. */

import type { HeadShape } from "../kv_pages.ts";
import { GATHERED_CUTS, MATRIX_CUT, PLAIN_CUT, splitsOf } from "./split_cut.ts";

/** Scratch beyond this is not asked for: a call with more rows than fit runs in several passes. */
const SCRATCH_BYTES = 64 * 2 ** 20;

/**
 * Shapes of the scratch tensors of `decodeAttention` that visits up to `longest` visible KV rows a row, or up to `selected`
 * of a selection.
 */
export function scratchShape(
  { heads, headDim }: HeadShape,
  { rows, longest, selected }: { readonly rows: number; readonly longest: number; readonly selected: number },
): { readonly o: readonly number[]; readonly lse: readonly number[] } {
  const needed = [PLAIN_CUT, MATRIX_CUT, ...Object.values(GATHERED_CUTS)].map((cut) => {
    const splits = splitsOf(cut, cut.gathered ? selected : longest);
    const fitting = Math.floor(SCRATCH_BYTES / (splits * heads * headDim * 4));
    return splits * Math.max(1, Math.min(rows, fitting));
  });
  const states = Math.max(...needed);
  return { o: [states, heads, headDim], lse: [states, heads] };
}
