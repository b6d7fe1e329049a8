/** Log-probabilities of what the GPU lists, and of whole rows. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { bestTokens, logprobsOf } from "../../../engine/logits/logprobs.ts";

Deno.test("logprobsOf() takes as many of the listed tokens as are wanted, or of the whole row", () => {
  const top = [{ token: 4, logit: 3 }, { token: 2, logit: 1 }];
  const row = { logSumExp: 5, tokenLogit: 1.5, top };
  const expected = { logprob: -3.5, top: [{ token: 4, logprob: -2 }] };
  assert.deepEqual(logprobsOf(row, { top: 1, whole: undefined }), expected);
  const { top: all } = logprobsOf(row, { top: 4, whole: Float32Array.of(0, 0, 1, -1, 3) });
  assert.deepEqual(all.map(({ token }) => token), [4, 2, 0, 1]);
  assert.deepEqual(all.map(({ logprob }) => logprob), [-2, -4, -5, -5]);
});

Deno.test("bestTokens() gives the largest first, ties by lower token", () => {
  assert.deepEqual(bestTokens(Float32Array.of(1, 3, 2, 3), 3), [1, 3, 2]);
  assert.deepEqual(bestTokens(Float32Array.of(1, 2), 0), []);
  fc.assert(fc.property(fc.array(fc.integer({ min: -4, max: 4 }), { maxLength: 40 }), fc.nat(45), (values, count) => {
    const best = bestTokens(Float32Array.from(values), count);
    assert.equal(best.length, Math.min(count, values.length));
    const others = values.keys().filter((token) => !best.includes(token)).toArray();
    const precedes = (a: number, b: number) =>
      (values[a] ?? 0) > (values[b] ?? 0) || (values[a] === values[b] && a < b);
    for (const [i, token] of best.entries()) {
      assert.ok([...best.slice(i + 1), ...others].every((other) => precedes(token, other)));
    }
  }));
});
