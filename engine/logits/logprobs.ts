/** Log-probabilities on the host, from one row of raw logits; for the few requests that ask for them. */

/** ln Σ exp(x), in f64. */
export function logSumExp(logits: Float32Array): number {
  let max = -Infinity;
  for (const x of logits) if (x > max) max = x;
  let sum = 0;
  for (const x of logits) sum += Math.exp(x - max);
  return max + Math.log(sum);
}

/** The indices of the `count` largest logits, largest first; ties by lower index. */
export function bestTokens(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let token = 0; token < logits.length; token++) {
    const value = logits[token] ?? -Infinity;
    const last = best.at(-1);
    if (best.length >= count && (last === undefined || value <= (logits[last] ?? -Infinity))) continue;
    let place = best.length;
    while (place > 0 && value > (logits[best[place - 1] ?? 0] ?? -Infinity)) place--;
    best.splice(place, 0, token);
    if (best.length > count) best.pop();
  }
  return best;
}
