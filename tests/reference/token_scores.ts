/** Log-softmax of one token of each row in plain f64 loops. */

/** What a row of logits says about a token. */
export interface TokenScore {
  readonly logprob: number;
  readonly logSumExp: number;
  /** The lowest id among the highest logits. */
  readonly best: number;
}

/** @param logits one row */
export function tokenScore(logits: Float32Array, target: number): TokenScore {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (Number(logits[i]) > Number(logits[best])) best = i;
  const top = Number(logits[best]);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - top);
  const logSumExp = top + Math.log(sum);
  return { logprob: Number(logits[target]) - logSumExp, logSumExp, best };
}
