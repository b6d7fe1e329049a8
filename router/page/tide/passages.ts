/**
 * Where an answer looked that it need not have looked: passages that stand out from what is around them. This is what a
 * needle is found by, in words; that what is near is read more than what is far says nothing about it.
 */

import type { Lane, Recording } from "./recording.ts";

/** A passage that was read again and again. */
export interface Passage {
  /** Positions [from, to). */
  readonly from: number;
  readonly to: number;
  /** Share of its positions that the set of heads which looks at it most has read, on average over the rows. */
  readonly share: number;
}

/** Positions that are weighed together: about the length of a fact. */
const WINDOW = 12;

/** Windows start this far apart: a needle is longer. */
const STRIDE = 4;

/** What is around a passage: so many positions before it and after it. */
const AROUND = 96;

/** A passage that stands out less is not worth showing: standard deviations of a position around it. */
const MIN_CONTRAST = 0.4;

/** Share of reads that every position is credited with, so that one read where there are few is no finding. */
const BACKGROUND = 0.02;

/**
 * The passages of the prompt that stand out most, the clearest first; they do not overlap.
 * @param most how many
 */
export function mostRead({ layout, lanes, sparseRows }: Recording, most: number): readonly Passage[] {
  if (layout === undefined || sparseRows === 0) return [];
  // What is always read, and what the answer wrote itself, is no finding.
  const range = { from: layout.sinks, to: layout.promptTokens - layout.recent };
  if (range.to - range.from < WINDOW + AROUND) return [];
  const { contrasts, shares } = weigh(lanes, range, sparseRows);
  const passages: Passage[] = [];
  while (passages.length < most) {
    const best = indexOfMax(contrasts);
    if ((contrasts[best] ?? 0) < MIN_CONTRAST) break;
    const from = range.from + best * STRIDE;
    passages.push({ from, to: from + WINDOW, share: shares[best] ?? 0 });
    const apart = 2 * WINDOW / STRIDE;
    contrasts.fill(0, Math.max(0, best - apart), best + apart);
  }
  return passages;
}

/**
 * For each window, in the lane where it is clearest: how far its share is above that around it,
 * in standard deviations of being read or not, and the share itself.
 */
function weigh(
  lanes: readonly Lane[],
  { from, to }: { readonly from: number; readonly to: number },
  sparseRows: number,
): { contrasts: Float64Array; shares: Float64Array } {
  const windows = Math.floor((to - from - WINDOW) / STRIDE) + 1;
  const [contrasts, shares] = [new Float64Array(windows), new Float64Array(windows)];
  // As far as the last window looks, into what is always read: nearness to that is no finding.
  const sums = new Float64Array(to - from + AROUND + 1);
  for (const { counts } of lanes) {
    for (let i = 1; i < sums.length; i++) sums[i] = (sums[i - 1] ?? 0) + (counts[from + i - 1] ?? 0) / sparseRows;
    const mean = (start: number, end: number) => ((sums[end] ?? 0) - (sums[start] ?? 0)) / Math.max(1, end - start);
    for (let window = 0; window < windows; window++) {
      const i = window * STRIDE;
      const share = mean(i, i + WINDOW);
      const before = i < WINDOW ? 0 : mean(Math.max(0, i - AROUND), i);
      const around = BACKGROUND + Math.max(before, mean(i + WINDOW, i + WINDOW + AROUND));
      const contrast = (share - around) / Math.sqrt(around * Math.max(BACKGROUND, 1 - around));
      if (contrast <= (contrasts[window] ?? 0)) continue;
      contrasts[window] = contrast;
      shares[window] = share;
    }
  }
  return { contrasts, shares };
}

function indexOfMax(values: Float64Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  return best;
}
