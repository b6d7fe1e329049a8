/** KL(p ‖ q) of two rows of logits in plain f64 loops. */

import { tokenScore } from "./token_scores.ts";

/** Nats. */
export function klDivergence(logits: Float32Array, kept: Float32Array): number {
  const [lse, keptLse] = [tokenScore(logits, 0).logSumExp, tokenScore(kept, 0).logSumExp];
  return logits.reduce((sum, logit, i) => {
    const logP = logit - lse;
    return sum + Math.exp(logP) * (logP - (Number(kept[i]) - keptLse));
  }, 0);
}
