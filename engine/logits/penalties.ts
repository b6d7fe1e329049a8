/**
 * What penalties, bias and minimum length do to the logits of one row: a sparse list of adjustments, made from the
 * tokens of the sequence each time, so that a rollback has nothing to undo.
 */

import { type Adjustment, BANNED } from "../../kernels/logits/adjust_logits.ts";
import type { SequenceState } from "../kv/sequences.ts";

/**
 * The adjustments for the token drawn after the row at `position`, ascending by token.
 * Presence and frequency count the output; repetition counts prompt and output.
 */
export function adjustmentsAt(
  { open, tokens }: Pick<SequenceState, "open" | "tokens">,
  position: number,
): Omit<Adjustment, "row">[] {
  const { sampling, promptTokens } = open;
  const found = new Map<number, { repetition: number; bias: number }>();
  const at = (token: number) => {
    const known = found.get(token);
    if (known !== undefined) return known;
    const plain = { repetition: 1, bias: 0 };
    found.set(token, plain);
    return plain;
  };
  if (sampling.repetitionPenalty !== 1) {
    // By index, without a copy: it walks the whole context before every token.
    for (let i = 0; i <= position; i++) {
      const token = tokens[i];
      if (token !== undefined && !found.has(token)) at(token).repetition = sampling.repetitionPenalty;
    }
  }
  if (sampling.presencePenalty !== 0) {
    for (const token of new Set(told(tokens, promptTokens, position))) at(token).bias -= sampling.presencePenalty;
  }
  if (sampling.frequencyPenalty !== 0) {
    for (const token of told(tokens, promptTokens, position)) at(token).bias -= sampling.frequencyPenalty;
  }
  for (const [token, bias] of sampling.logitBias) at(token).bias += bias;
  if (position + 1 - promptTokens < sampling.minTokens) {
    for (const token of sampling.suppressed) at(token).bias = BANNED;
  }
  return [...found].map(([token, adjustment]) => ({ token, ...adjustment })).sort((a, b) => a.token - b.token);
}

/** The tokens at positions `first` to `last` that spans or the prefix have brought. */
function told(tokens: readonly (number | undefined)[], first: number, last: number): readonly number[] {
  return tokens.slice(first, last + 1).filter((token) => token !== undefined);
}
