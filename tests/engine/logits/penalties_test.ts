/** What a row's settings do to its logits, and what they do not. */

import assert from "node:assert/strict";

import { adjustmentsAt } from "../../../engine/logits/penalties.ts";
import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import type { SamplingSettings } from "../../../engine/span.ts";
import { BANNED } from "../../../kernels/logits/adjust_logits.ts";
import { open } from "../../support/step_parts.ts";

/** Two prompt tokens 5 and 6, then the output 7, 5, 7; what lies behind was rolled back. */
const TOKENS = [5, 6, 7, 5, 7, 9, 9];
const LAST = 4;

function adjustments(sampling: Partial<SamplingSettings>, tokens: readonly (number | undefined)[] = TOKENS) {
  const state = { open: open(1, { promptTokens: 2, sampling: { ...GREEDY, ...sampling } }), tokens: [...tokens] };
  return adjustmentsAt(state, LAST).map(({ token, repetition, bias }) => [token, repetition, bias]);
}

Deno.test("adjustmentsAt() leaves plain rows alone", () => {
  assert.deepEqual(adjustments({}), []);
});

Deno.test("adjustmentsAt() penalises repetition over prompt and output, not what was rolled back", () => {
  assert.deepEqual(adjustments({ repetitionPenalty: 1.5 }), [[5, 1.5, 0], [6, 1.5, 0], [7, 1.5, 0]]);
});

Deno.test("adjustmentsAt() counts presence once and frequency each time, over the output only", () => {
  assert.deepEqual(adjustments({ presencePenalty: 0.5 }), [[5, 1, -0.5], [7, 1, -0.5]]);
  assert.deepEqual(adjustments({ frequencyPenalty: 0.25 }), [[5, 1, -0.25], [7, 1, -0.5]]);
  assert.deepEqual(adjustments({ presencePenalty: -1, frequencyPenalty: 0.25 }), [[5, 1, 0.75], [7, 1, 0.5]]);
});

Deno.test("adjustmentsAt() adds biases up, by token", () => {
  assert.deepEqual(adjustments({ logitBias: [[8, 3], [2, -100], [8, 1]], presencePenalty: 1 }), [
    [2, 1, -100],
    [5, 1, -1],
    [7, 1, -1],
    [8, 1, 4],
  ]);
});

Deno.test("adjustmentsAt() bans suppressed tokens until there are enough, whatever their bias", () => {
  // The row at position 4 draws output 3.
  assert.deepEqual(adjustments({ minTokens: 4, suppressed: [1], logitBias: [[1, 100]] }), [[1, 1, BANNED]]);
  assert.deepEqual(adjustments({ minTokens: 3, suppressed: [1] }), []);
});

Deno.test("adjustmentsAt() does not take an unknown token of a prefix for token 0", () => {
  assert.deepEqual(adjustments({ repetitionPenalty: 2 }, [undefined, undefined, 7, 5, 7]), [[5, 2, 0], [7, 2, 0]]);
});
