/** What a row's settings add to its logits, and when. */

import assert from "node:assert/strict";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { biasesOf, countsTokens, suppresses } from "../../../engine/logits/penalties.ts";
import type { SamplingSettings } from "../../../engine/span.ts";
import { BANNED } from "../../../kernels/logits/adjust_logits.ts";
import { open } from "../../support/step_parts.ts";

const SUPPRESSED = true;

function biases(sampling: Partial<SamplingSettings>, isSuppressed = !SUPPRESSED) {
  return biasesOf({ ...GREEDY, ...sampling }, isSuppressed).map(({ token, bias }) => [token, bias]);
}

Deno.test("countsTokens() is true of each penalty that is on, negative ones too", () => {
  assert.ok(!countsTokens({ ...GREEDY, logitBias: [[1, 1]], minTokens: 4, suppressed: [1] }));
  for (const on of [{ repetitionPenalty: 0.9 }, { presencePenalty: -1 }, { frequencyPenalty: 0.1 }]) {
    assert.ok(countsTokens({ ...GREEDY, ...on }), JSON.stringify(on));
  }
});

Deno.test("suppresses() holds until there are enough tokens", () => {
  const opening = open(1, { promptTokens: 2, sampling: { ...GREEDY, minTokens: 3, suppressed: [1] } });
  assert.deepEqual([1, 2, 3, 4, 5].map((position) => suppresses(opening, position)), [true, true, true, false, false]);
  assert.ok(!suppresses(open(1, { sampling: { ...GREEDY, minTokens: 3 } }), 0), "there is nothing to suppress");
});

Deno.test("biasesOf() adds biases up by token, and bans suppressed tokens whatever their bias", () => {
  assert.deepEqual(biases({}), []);
  assert.deepEqual(biases({ logitBias: [[8, 3], [2, -100], [8, 1]] }), [[8, 4], [2, -100]]);
  const forced = { logitBias: [[1, 100], [3, 1]], suppressed: [1, 5] } as const;
  assert.deepEqual(biases(forced), [[1, 100], [3, 1]]);
  assert.deepEqual(biases(forced, SUPPRESSED), [[1, BANNED], [3, 1], [5, BANNED]]);
});
