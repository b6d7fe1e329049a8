/** The arithmetic of the model of cost, by hand on a small shape; and how far it is from what was measured. */

import assert from "node:assert/strict";

import { checks } from "./scaling.ts";
import {
  type Card,
  cardsFor,
  copiedBytes,
  copiesFit,
  dealtPrefillMs,
  decodeMs,
  exchangeMs,
  type Link,
  prefillMs,
  selectMs,
} from "./scaling_model.ts";

/** Keys and values of a position and layer: 2 · 2 · 8 · 2 = 64 bytes. */
const SHAPE = {
  config: { layers: 8, hidden: 32, ffn: 64, heads: 4, kvHeads: 2, headDim: 8 },
  wholeLayers: 3,
  selectLayers: 2,
};
const CARD: Card = {
  denseMs: 10,
  sparseMs: 9,
  kvBytesPerMs: 6400,
  productFlopPerMs: 1e6,
  attentionFlopPerMs: 1e5,
  kvBytes: 512_000,
};
const LINK: Link = {
  bytesPerMs: 1000,
  hopMs: 0.5,
  messageMs: 0.1,
  readBackMs: 0.2,
  uploadMs: 0.3,
  unexplainedMs: 0.4,
  keyBytesPerMs: 2000,
  stepMs: 2,
  queryBytesPerMs: 500,
  leadMs: 1.5,
  leadSparseMs: 2.5,
  candidateMs: 0.001,
};

function near(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual}, expected ${expected}`);
}

Deno.test("exchangeMs() sums pieces, messages to and from each other worker, and their bytes", () => {
  near(exchangeMs(SHAPE, LINK, 1), 0);
  // 4 heads of 8 numbers and one: 144 bytes to each.
  near(exchangeMs(SHAPE, LINK, 2), 0.9 + 0.2 + 0.5 + 0.144);
  near(exchangeMs(SHAPE, LINK, 4), 0.9 + 0.6 + 0.5 + 3 * 0.144);
});

Deno.test("decodeMs() reads a worker's share, exchanges in each layer, or copies what is missing", () => {
  near(decodeMs(SHAPE, CARD, LINK, { context: 1000, workers: 1 }), 10 + 8 * 1000 * 64 / 6400);
  const exchange = exchangeMs(SHAPE, LINK, 2);
  near(decodeMs(SHAPE, CARD, LINK, { context: 1000, workers: 2 }), 2 + 10 + 8 * 500 * 64 / 6400 + 8 * exchange);
  const choice = selectMs(SHAPE, LINK, { workers: 2, budget: 100 });
  near(choice, 2 * 0.5 + 4 * 0.1 + 2 * 200 * 12 / 1000 + 400 * 0.001);
  const states = { context: 1000, workers: 2, sparse: { budget: 100 } };
  near(decodeMs(SHAPE, CARD, LINK, states), 2 + 9 + (3 * 500 + 5 * 50) * 64 / 6400 + 8 * exchange + 2 * choice);
  near(copiedBytes(SHAPE, 100, 0.1), 0.1 * 100 * 5 * 64);
  const rows = { ...states, sparse: { budget: 100, missing: 0.1 } };
  const copying = 2 * (0.9 + 0.2 + 0.5 + 3200 / 2 / 2 / 1000);
  near(
    decodeMs(SHAPE, CARD, LINK, rows),
    2 + 9 + (3 * 500 + 5 * 100) * 64 / 6400 + 3 * exchange + 2 * choice + copying,
  );
});

Deno.test("decodeMs() of what is copied is that of one worker, which reads all of it, and a little more", () => {
  const load = { context: 1000, workers: 2, copied: true };
  near(decodeMs(SHAPE, CARD, LINK, load), 1.5 + 10 + 8 * 1000 * 64 / 6400);
  const sparse = { ...load, sparse: { budget: 100 } };
  near(decodeMs(SHAPE, CARD, LINK, sparse), 2.5 + 9 + (3 * 1000 + 5 * 100) * 64 / 6400);
  // 512,000 bytes at 512 a position.
  assert.ok(copiesFit(SHAPE, CARD, { context: 1000 }) && !copiesFit(SHAPE, CARD, { context: 1001 }));
});

Deno.test("dealtPrefillMs() takes the longer of computing and passing on, step by step", () => {
  const load = { tokens: 100, chunk: 50, workers: 2 };
  const { computeMs } = prefillMs(SHAPE, CARD, LINK, { ...load, moves: "keys" });
  const begin = computeMs / 2 / 8 + 0.2 + 0.3 + 0.5;
  near(dealtPrefillMs(SHAPE, CARD, LINK, load), 2 * (Math.max(computeMs / 2, 8 * 50 * 64 / 2000) + begin + 2));
  const slow = { ...LINK, keyBytesPerMs: 100 };
  near(dealtPrefillMs(SHAPE, CARD, slow, load), 2 * (8 * 50 * 64 / 100 + begin + 2));
  near(
    dealtPrefillMs(SHAPE, CARD, LINK, { ...load, workers: 1 }),
    prefillMs(SHAPE, CARD, LINK, { ...load, workers: 1, moves: "keys" }).computeMs,
  );
});

Deno.test("prefillMs() shares operations out, and counts what travels", () => {
  const load = { tokens: 100, chunk: 50, moves: "keys" } as const;
  const weights = 8 * (32 * 64 + 32 * 32 + 3 * 32 * 64);
  const computeMs = 2 * weights * 100 / 1e6 + 4 * 8 * 32 * 5000 / 1e5;
  const alone = prefillMs(SHAPE, CARD, LINK, { ...load, workers: 1 });
  near(alone.computeMs, computeMs);
  near(alone.linkMs, 0);
  const round = 0.9 + 0.2 + 0.5;
  const keys = prefillMs(SHAPE, CARD, LINK, { ...load, workers: 2 });
  near(keys.computeMs, computeMs / 2);
  near(keys.linkMs, 8 * 50 * 64 / 1000 + 8 * 2 * round);
  const queries = prefillMs(SHAPE, CARD, LINK, { ...load, moves: "queries", workers: 2 });
  near(queries.linkMs, 8 * (50 * 128 + 50 * 144) / 500 + 2 * 8 * 2 * round);
  assert.equal(cardsFor(SHAPE, CARD, 1000), 1);
  assert.equal(cardsFor(SHAPE, CARD, 1001), 2);
});

Deno.test("The model is within 15 % of what one card and two were measured to take", () => {
  assert.equal(checks().length, 5);
  for (const [what, measured, predicted] of checks()) {
    assert.ok(Math.abs(predicted / measured - 1) < 0.15, `${what}: ${predicted} ms, measured ${measured}`);
  }
});
