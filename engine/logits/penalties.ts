/** What the settings of a request do to the logits of a row, apart from what they count (`token_counts.ts`). */

import { BANNED } from "../../kernels/logits/adjust_logits.ts";
import type { SamplingSettings, SequenceOpening } from "../span.ts";

/** What is added to a token's logit. */
export interface Bias {
  readonly token: number;
  readonly bias: number;
}

/** Whether penalties look at the tokens before a row. */
export function countsTokens(
  { repetitionPenalty, presencePenalty, frequencyPenalty }: SamplingSettings,
): boolean {
  return repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
}

/** Whether the token drawn after the row at `position` is one of those that `suppressed` holds for. */
export function suppresses({ sampling, promptTokens }: SequenceOpening, position: number): boolean {
  return sampling.suppressed.length > 0 && position + 1 - promptTokens < sampling.minTokens;
}

/** The biases of a row, one for each token that has any: bans go before all else. */
export function biasesOf({ logitBias, suppressed }: SamplingSettings, isSuppressed: boolean): Bias[] {
  const sums = new Map<number, number>();
  for (const [token, bias] of logitBias) sums.set(token, (sums.get(token) ?? 0) + bias);
  if (isSuppressed) { for (const token of suppressed) sums.set(token, BANNED); }
  return Array.from(sums, ([token, bias]) => ({ token, bias }));
}
