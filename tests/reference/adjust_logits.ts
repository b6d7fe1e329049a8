/** Penalties and biases in plain f64 loops. */

import type { Adjustment } from "../../kernels/logits/adjust_logits.ts";

/** @returns f64, the adjusted copy of logits [rows, vocabulary] */
export function adjustLogits(
  logits: ArrayLike<number>,
  vocabulary: number,
  adjustments: readonly Adjustment[],
): Float64Array {
  const out = Float64Array.from(logits);
  for (const { row, token, repetition, bias } of adjustments) {
    const at = row * vocabulary + token;
    const logit = Number(out[at]);
    out[at] = (logit > 0 ? logit / repetition : logit * repetition) + bias;
  }
  return out;
}
