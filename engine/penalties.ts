/**
 * What penalties, bias and minimum length do to the logits of one row: a sparse list of adjustments, made anew from the
 * tokens of the sequence each time, so that a rollback has nothing to undo.
 */

import type { SequenceState } from "./batch.ts";

/** Adjusts one logit: by `repetition` (divides it when positive, multiplies it when negative), then adds `bias`. */
export interface Adjustment {
  readonly token: number;
  readonly repetition: number;
  readonly bias: number;
}

/** Finite, and far below any logit: WGSL may assume that there are no infinities. */
const SUPPRESSED = -1e30;

/**
 * The adjustments for the token drawn after the row at `position`, ascending by token.
 * Presence and frequency count the output; repetition counts prompt and output.
 */
export function adjustmentsAt({ open, tokens }: SequenceState, position: number): Adjustment[] {
  const { sampling, promptTokens } = open;
  const found = new Map<number, { repetition: number; bias: number }>();
  const at = (token: number) => {
    const known = found.get(token) ?? { repetition: 1, bias: 0 };
    found.set(token, known);
    return known;
  };
  if (sampling.repetitionPenalty !== 1) {
    for (let i = 0; i <= position; i++) at(tokens[i] ?? 0).repetition = sampling.repetitionPenalty;
  }
  if (sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0) {
    const counts = new Map<number, number>();
    for (let i = promptTokens; i <= position; i++) {
      const token = tokens[i] ?? 0;
      counts.set(token, (counts.get(token) ?? 0) + 1);
    }
    for (const [token, count] of counts) {
      at(token).bias -= sampling.presencePenalty + count * sampling.frequencyPenalty;
    }
  }
  for (const [token, bias] of sampling.logitBias) at(token).bias += bias;
  if (position + 1 - promptTokens < sampling.minTokens) {
    for (const token of sampling.suppressed) at(token).bias = SUPPRESSED;
  }
  return [...found].map(([token, adjustment]) => ({ token, ...adjustment })).sort((a, b) => a.token - b.token);
}
