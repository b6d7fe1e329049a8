/** Penalties and biases in plain f64 loops. */

/** What happens to a row of logits. */
export interface ReferenceAdjustment {
  readonly repetition: number;
  readonly presence: number;
  readonly frequency: number;
  /** Added; a token may have several. */
  readonly biases: readonly (readonly [token: number, bias: number])[];
  /** Of the prompt, and of the output. */
  readonly prompt: readonly number[];
  readonly output: readonly number[];
}

/** @param logits one row @returns f64, the adjusted copy */
export function adjustLogits(logits: ArrayLike<number>, adjustment: ReferenceAdjustment): Float64Array {
  const { repetition, presence, frequency, biases, prompt, output } = adjustment;
  const out = Float64Array.from(logits);
  for (const token of new Set([...prompt, ...output])) {
    const logit = Number(out[token]);
    out[token] = logit > 0 ? logit / repetition : logit * repetition;
  }
  for (const token of new Set(output)) out[token] = Number(out[token]) - presence;
  for (const token of output) out[token] = Number(out[token]) - frequency;
  for (const [token, bias] of biases) out[token] = Number(out[token]) + bias;
  return out;
}
