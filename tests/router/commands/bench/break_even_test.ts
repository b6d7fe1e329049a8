/** The arithmetic behind the break-even of `bench`, compared with plain counting. */

import assert from "node:assert/strict";
import { PRESETS } from "../../../../engine/model/presets.ts";
import { bestLossless, breakEvenStride } from "../../../../router/commands/bench/break_even.ts";
import { expectedTokens } from "../../../../router/scheduling/round_stride.ts";
import { denseSpanFlop } from "../../../../router/commands/bench/flop.ts";

/** Sums over every number of drafts that agree before the first that does not. */
function countedTokens(stride: number, agreement: number): number {
  const drafts = stride - 1;
  let sum = 0;
  for (let agreeing = 0; agreeing <= drafts; agreeing++) {
    const stops = agreeing === drafts ? 1 : 1 - agreement;
    sum += agreement ** agreeing * stops * (agreeing + 1);
  }
  return sum;
}

Deno.test("expectedTokens() is the mean over all ways in which drafts may agree", () => {
  for (const stride of [1, 2, 3, 4, 16]) {
    for (const agreement of [0, 0.5, 0.9, 0.95, 0.999, 1]) {
      const [given, counted] = [expectedTokens(stride, agreement), countedTokens(stride, agreement)];
      assert.ok(Math.abs(given - counted) < 1e-9 * stride, `${given} is not ${counted}`);
    }
  }
  assert.equal(expectedTokens(8, 1), 8);
  assert.equal(expectedTokens(8, 0), 1);
});

Deno.test("bestLossless() finds longer strides best where drafts agree more often", () => {
  const rounds = [2, 4, 8, 16].map((stride) => ({ stride, cycleMs: 20 + 5 * stride }));
  assert.deepEqual(bestLossless(rounds, 0), { agreement: 0, stride: 2, expectedTokens: 1, msPerToken: 30 });
  assert.equal(bestLossless(rounds, 0.8).stride, 4);
  assert.equal(bestLossless(rounds, 0.9).stride, 8);
  assert.deepEqual(bestLossless(rounds, 1), { agreement: 1, stride: 16, expectedTokens: 16, msPerToken: 6.25 });
});

Deno.test("breakEvenStride() wants all longer strides to be faster than dense too", () => {
  const refresh = (...msPerToken: number[]) => msPerToken.map((ms, i) => ({ stride: 16 * 2 ** i, msPerToken: ms }));
  assert.equal(breakEvenStride(refresh(12, 9, 8), 10), 32);
  assert.equal(breakEvenStride(refresh(9, 8, 7), 10), 16);
  assert.equal(breakEvenStride(refresh(9, 11, 8), 10), 64);
  assert.equal(breakEvenStride(refresh(9, 8, 10), 10), undefined);
  assert.equal(breakEvenStride([], 10), undefined);
  assert.equal(breakEvenStride(refresh(12, 9, 8).reverse(), 10), 32);
});

Deno.test("denseSpanFlop() counts products by weights, the head by its rows, and attention by visited rows", () => {
  const { tiny, ["llama-3-8b"]: llama } = PRESETS;
  assert.ok(tiny !== undefined && llama !== undefined);
  const shape = { layers: 2, hidden: 8, ffn: 16, heads: 2, kvHeads: 1, headDim: 4, vocabSize: 10 };
  const config = { ...tiny.config, ...shape };
  // A layer: q 8 × 8, k and v 4 × 8 each, output 8 × 8, gate, up and down 16 × 8 each. Rows 5, 6, 7 see 6, 7 and 8.
  const products = 2 * 3 * 2 * (64 + 32 + 32 + 64 + 3 * 128);
  const span = { from: 5, rows: 3, headRows: 1 };
  assert.equal(denseSpanFlop(config, span), products + 2 * 80 + 4 * 21 * 2 * 4 * 2);
  assert.equal(denseSpanFlop(config, { ...span, headRows: 3 }), products + 3 * 2 * 80 + 4 * 21 * 2 * 4 * 2);
  assert.equal(
    denseSpanFlop({ ...config, slidingWindow: 6 }, span),
    products + 2 * 80 + 4 * (6 + 6 + 6) * 2 * 4 * 2,
  );
  const row = denseSpanFlop(llama.config, { from: 99_999, rows: 1, headRows: 1 });
  assert.ok(Math.abs(row / 1e9 - 67.4) < 0.1, `${row}`);
});
