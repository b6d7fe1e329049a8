/** What measured corrections mean for speed against dense decoding: pure arithmetic. Knows figures; runs nothing. */

import { expectedTokens } from "../../scheduling/round_stride.ts";

/** Lossless decoding at an agreement that was given, not measured. */
export interface LosslessFigures {
  readonly agreement: number;
  /** The measured stride with the fewest milliseconds per expected token. */
  readonly stride: number;
  readonly expectedTokens: number;
  readonly msPerToken: number;
}

/**
 * The best stride at an agreement.
 * @param rounds measured, at least one
 */
export function bestLossless(
  rounds: readonly { readonly stride: number; readonly cycleMs: number }[],
  agreement: number,
): LosslessFigures {
  const options = rounds.map(({ stride, cycleMs }) => {
    const tokens = expectedTokens(stride, agreement);
    return { agreement, stride, expectedTokens: tokens, msPerToken: cycleMs / tokens };
  });
  return options.reduce((best, option) => option.msPerToken < best.msPerToken ? option : best);
}

/**
 * The smallest measured stride from which on refreshing is faster than dense decoding at every measured stride; undefined
 * when the longest is not.
 */
export function breakEvenStride(
  refresh: readonly { readonly stride: number; readonly msPerToken: number }[],
  denseMsPerToken: number,
): number | undefined {
  const descending = [...refresh].sort((a, b) => b.stride - a.stride);
  const slower = descending.findIndex(({ msPerToken }) => msPerToken >= denseMsPerToken);
  return descending.slice(0, slower === -1 ? descending.length : slower).at(-1)?.stride;
}
