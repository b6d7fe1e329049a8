/** Rows or states, by what exchanges were measured to take. */

import assert from "node:assert/strict";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { layerRoles } from "../../../engine/layer_plan.ts";
import type { Step, StepTiming } from "../../../engine/span.ts";
import { ExchangeChoice } from "../../../router/group/exchange_choice.ts";
import { LinkFit } from "../../../router/group/link_fit.ts";

/** 12 layers, 8 of them sparse. */
const ROLES = layerRoles(12, [2, 6]);
const SPARSE = { budget: 256, heads: "kv_head" } as const;
const NONE = { queries: 0, keys: 0, states: 0, rows: 0, candidates: 0, replicas: 0 };

function step(sequence: number, { opens = false } = {}): Step {
  const opening = { sampling: GREEDY, sparse: SPARSE, promptTokens: 1, pageOffset: 0, audited: false };
  const empty = new Uint32Array();
  const row = { kind: "decode", attention: "sparse", logits: "last", from: 500, tokens: Uint32Array.of(1) } as const;
  return {
    index: 1,
    open: opens ? [{ ...opening, sequence, prefixPages: empty, prefixTokens: empty }] : [],
    release: [],
    spans: [{ ...row, sequence, newPages: empty }],
    deadlineMs: 1,
  };
}

/** Of a step whose exchanges take 0.5 ms each and a millisecond for 20 KB; 2 KB for each position that is missing. */
function timing(missing: number): StepTiming {
  const chosen = 2 * 4 * SPARSE.budget;
  const bytes = { ...NONE, states: 4 * 1000, replicas: missing * chosen * 2000 };
  const ms = { ...NONE, states: 4 * 0.5 + bytes.states / 20_000, replicas: 2 * 0.5 + bytes.replicas / 20_000 };
  const exchange = { ms, readMs: 0, bytes, counts: { ...NONE, states: 4, replicas: 2 } };
  return { encodeMs: 1, waitMs: 1, totalMs: 2, exchange, replicas: { chosen, missing: missing * chosen } };
}

function opened(choice: ExchangeChoice, sequence: number): string | undefined {
  return choice.open(step(sequence, { opens: true })).open[0]?.sparseExchange;
}

Deno.test("LinkFit finds what an exchange and a byte take, and one size alone says nothing of bytes", () => {
  const fit = new LinkFit();
  assert.equal(fit.predictMs({ count: 3, bytes: 10 }), 0);
  fit.learn("states", { count: 32, bytes: 3200 }, 16);
  assert.ok(Math.abs(fit.predictMs({ count: 1, bytes: 1e6 }) - 0.5) < 1e-9);
  fit.learn("replicas", { count: 2, bytes: 100_000 }, 2 * 0.49 + 10);
  fit.learn("states", { count: 32, bytes: 3200 }, 32 * 0.49 + 0.32);
  const predicted = fit.predictMs({ count: 2, bytes: 50_000 });
  assert.ok(Math.abs(predicted - 5.98) < 0.02, `${predicted}`);
});

Deno.test("ExchangeChoice copies rows until some were measured, then while they cost less, by the sequence", () => {
  const choice = new ExchangeChoice(ROLES);
  assert.equal(opened(choice, 1), "rows");
  for (let row = 0; row < 20; row++) choice.learn(step(1), timing(0.001));
  // 8 exchanges of states take 4.4 ms, 2 of rows 1 ms and 4 KB.
  const { statesMs, rowsMs } = choice.predict(SPARSE);
  assert.ok(Math.abs(statesMs - 8 * 0.55) < 0.1 && Math.abs(rowsMs - 1.2) < 0.1, `${statesMs} ms, ${rowsMs} ms`);
  assert.equal(opened(choice, 2), "rows");
  for (let row = 0; row < 80; row++) choice.learn(step(2), timing(0.62));
  assert.equal(opened(choice, 3), "states");
  // Of those that copy rows nothing is known meanwhile: one in a while tries again.
  const later = Array.from({ length: 40 }, (_, i) => opened(choice, 4 + i));
  assert.equal(later.filter((each) => each === "rows").length, 1);
});

Deno.test("ExchangeChoice takes no misses of stores that are still being filled for what is missing", () => {
  const choice = new ExchangeChoice(ROLES);
  opened(choice, 1);
  for (let row = 0; row < 10; row++) choice.learn(step(1), timing(0.9));
  choice.learn({ spans: [], release: [1] }, { encodeMs: 0, waitMs: 0, totalMs: 0 });
  // 5 % of 2,048 positions at 2 KB.
  assert.ok(Math.abs(choice.predict(SPARSE).rowsMs - (1 + 0.05 * 2048 * 2000 / 20_000)) < 0.1);
});

Deno.test("ExchangeChoice exchanges states where all that rows see is copied, until they turn out to travel", () => {
  const choice = new ExchangeChoice(ROLES, true);
  // Others have shown what rows and states take.
  const byRows = { ...step(1), open: step(1, { opens: true }).open };
  choice.open(byRows);
  for (let i = 0; i < 40; i++) {
    choice.learn(step(1), { ...timing(0.001), exchange: { ms: NONE, readMs: 0, bytes: NONE, counts: NONE } });
    assert.equal(opened(choice, 2 + i), "states");
  }
  // Room for copies is short: each layer exchanges, and rows were not tried yet.
  const exchange = {
    ms: { ...NONE, states: 12 },
    readMs: 0,
    bytes: { ...NONE, states: 12_000 },
    counts: { ...NONE, states: 12 },
  };
  for (let i = 0; i < 40; i++) choice.learn(step(1), { encodeMs: 0, waitMs: 0, totalMs: 0, exchange });
  assert.equal(opened(choice, 50), "rows");
});
