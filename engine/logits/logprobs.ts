/** Log-probabilities as answers have them, from what the GPU says about a row of raw logits. */

import { at } from "../../kernels/at.ts";
import type { RowLogprobs } from "../../kernels/logits/top_logprobs.ts";
import type { TokenLogprobs } from "../span.ts";

/**
 * The log-probabilities of a drawn token and its alternatives.
 * @param input.top alternatives that are wanted
 * @param input.whole all logits of the row, where more are wanted than were listed
 */
export function logprobsOf(
  { logSumExp, tokenLogit, top: listed }: RowLogprobs,
  { top, whole }: { readonly top: number; readonly whole: Float32Array | undefined },
): TokenLogprobs {
  const best = whole === undefined
    ? listed.slice(0, top)
    : bestTokens(whole, top).map((token) => ({ token, logit: at(whole, token) }));
  return {
    logprob: tokenLogit - logSumExp,
    top: best.map(({ token, logit }) => ({ token, logprob: logit - logSumExp })),
  };
}

/** The indices of the `count` largest logits, largest first; ties by lower index. */
export function bestTokens(logits: Float32Array, count: number): number[] {
  const all = Array.from(logits.keys());
  return all.sort((a, b) => at(logits, b) - at(logits, a) || a - b).slice(0, count);
}
