/** The rule by which requests go to groups, on figures alone. */

import assert from "node:assert/strict";
import { mixedLength } from "../../../router/commands/bench/batches.ts";
import { type Candidate, inOrder } from "../../../router/fleet/routing.ts";

const IDLE: Omit<Candidate, "index"> = {
  hasSiblings: false,
  cachedTokens: 0,
  unreadTokens: 0,
  sequences: 0,
  freePages: 100,
  hasRoom: true,
};

/** Which groups a request of 1,000 tokens tries, in order. */
function order(...groups: readonly Partial<Candidate>[]): readonly number[] {
  return inOrder(1000, groups.map((group, index) => ({ ...IDLE, index, ...group }))).map(({ index }) => index);
}

Deno.test("inOrder() goes to the longest cached prefix, else to where there is least to do and most room", () => {
  assert.deepEqual(order({}, { cachedTokens: 640 }, { cachedTokens: 64 }), [1, 2, 0]);
  assert.deepEqual(order({ sequences: 2 }, { sequences: 1 }, {}), [2, 1, 0]);
  assert.deepEqual(order({ unreadTokens: 10_000, sequences: 1 }, { sequences: 3 }), [1, 0]);
  assert.deepEqual(order({ unreadTokens: 500, sequences: 1 }, { sequences: 3 }), [0, 1]);
  assert.deepEqual(order({ freePages: 10 }, { freePages: 20 }), [1, 0]);
  assert.deepEqual(order({}, {}), [0, 1], "the first of equals");
});

Deno.test("inOrder() lets a prefix of n pages draw n sequences more to its group, and no further one", () => {
  const cached = { cachedTokens: 640, freePages: 90 };
  assert.deepEqual(order({}, { ...cached, sequences: 9 }), [1, 0]);
  assert.deepEqual(order({}, { ...cached, sequences: 11 }), [0, 1]);
  assert.deepEqual(order({ sequences: 5 }, { ...cached, sequences: 14 }), [1, 0]);
});

Deno.test("inOrder() waits for a full group only where its prefix is longer than any that could start now", () => {
  const full = { hasRoom: false };
  assert.deepEqual(order({ ...full }, { sequences: 9 }), [1, 0], "nothing is cached: what has room goes first");
  assert.deepEqual(order({ ...full, cachedTokens: 640 }, { cachedTokens: 640, sequences: 9 }), [1, 0]);
  assert.deepEqual(order({ ...full, cachedTokens: 640 }, { cachedTokens: 64 }), [0, 1], "it is worth waiting for");
  assert.deepEqual(order({ ...full, sequences: 4 }, { ...full, sequences: 3 }), [1, 0], "both are full");
});

Deno.test("inOrder() keeps the choices of a request together unless there is no room", () => {
  assert.deepEqual(order({}, { hasSiblings: true, sequences: 20 }), [1, 0]);
  assert.deepEqual(order({}, { hasSiblings: true, hasRoom: false, sequences: 20 }), [0, 1]);
  assert.deepEqual(order({ hasRoom: false }, { hasSiblings: true, hasRoom: false, sequences: 20 }), [1, 0]);
});

Deno.test("inOrder() deals chats of mixed lengths that come at once evenly, and their prompts nearly so", () => {
  for (const { groups, spread } of [{ groups: 2, spread: 1.1 }, { groups: 4, spread: 1.4 }]) {
    const dealt = Array.from({ length: groups }, () => ({ sequences: 0, unreadTokens: 0 }));
    for (let i = 0; i < 32; i++) {
      const tokens = mixedLength(i, 2048);
      const [first] = inOrder(tokens, dealt.map((load, index) => ({ ...IDLE, index, ...load })));
      const load = dealt[first?.index ?? -1];
      assert.ok(load);
      load.sequences++;
      load.unreadTokens += tokens;
    }
    assert.deepEqual(dealt.map(({ sequences }) => sequences), dealt.map(() => 32 / groups));
    const prompts = dealt.map(({ unreadTokens }) => unreadTokens);
    assert.ok(Math.max(...prompts) <= spread * Math.min(...prompts), `prompts of ${prompts} tokens`);
  }
});
