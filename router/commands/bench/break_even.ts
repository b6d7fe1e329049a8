/** What measured corrections mean for speed against dense decoding: pure arithmetic. Knows figures; runs nothing. */

/**
 * Tokens that a lossless round is expected to release: the drafts before the first that disagrees, and the token that
 * the verification draws itself.
 * @param stride rows of the verification, one more than there are drafts
 * @param agreement probability that a draft agrees when all before it did, from 0 to 1
 */
export function expectedTokens(stride: number, agreement: number): number {
  return agreement === 1 ? stride : (1 - agreement ** stride) / (1 - agreement);
}

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
