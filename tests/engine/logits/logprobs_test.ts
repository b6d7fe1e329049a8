/** Log-sum-exp and the best tokens of a row. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { bestTokens, logSumExp } from "../../../engine/logits/logprobs.ts";

Deno.test("logSumExp() survives large logits", () => {
  assert.ok(Math.abs(logSumExp(Float32Array.of(1000, 1000)) - (1000 + Math.LN2)) < 1e-9);
  assert.equal(logSumExp(Float32Array.of(-1e30, 3)), 3);
});

Deno.test("bestTokens() gives the largest first, ties by lower token, as sorting would", () => {
  assert.deepEqual(bestTokens(Float32Array.of(1, 3, 2, 3), 3), [1, 3, 2]);
  assert.deepEqual(bestTokens(Float32Array.of(1, 2), 0), []);
  fc.assert(fc.property(fc.array(fc.integer({ min: -4, max: 4 }), { maxLength: 40 }), fc.nat(45), (values, count) => {
    const logits = Float32Array.from(values);
    const sorted = values.map((_, token) => token).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b);
    assert.deepEqual(bestTokens(logits, count), sorted.slice(0, count));
  }));
});
