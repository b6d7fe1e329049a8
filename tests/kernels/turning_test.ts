import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { endsSoon, paceGlobalImmediates, whileTurning } from "../../kernels/turning.ts";

Deno.test("whileTurning() gives what the promise gives, at once or later", async () => {
  assert.equal(await whileTurning(Promise.resolve(1)), 1);
  assert.equal(await whileTurning(new Promise((resolve) => setTimeout(() => resolve(2), 20))), 2);
  await assert.rejects(whileTurning(Promise.reject(new Error("no"))), /no/);
});

Deno.test("whileTurning() keeps the event loop turning while it waits", async () => {
  let turns = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const turn = () => ++turns < 20 ? setTimeout(turn, 0) : resolve();
  turn();
  await whileTurning(promise);
  assert.equal(turns, 20);
});

Deno.test("endsSoon() at the start of a wait, and where the one before ended", () => {
  const eager = (usualMs: number) => [0, 3, 5, 30, 38, 41, 45, 60].filter((ageMs) => endsSoon(ageMs, usualMs));
  assert.deepEqual(eager(0), [0, 3]);
  assert.deepEqual(eager(6), [0, 3, 5]);
  assert.deepEqual(eager(40), [0, 3, 38, 41]);
});

/** Callbacks while something is awaited, each of which queues the next, as Dawn does it. */
async function callbacksOfWait(): Promise<{ readonly all: number; readonly within4Ms: number; readonly ms: number }> {
  let [all, within4Ms, isOver] = [0, 0, false];
  const startMs = performance.now();
  const callback = () => {
    all++;
    if (performance.now() - startMs < 4) within4Ms++;
    if (!isOver) globalThis.setImmediate(callback);
  };
  const waited = whileTurning(new Promise((resolve) => setTimeout(resolve, 200)));
  globalThis.setImmediate(callback);
  await waited;
  isOver = true;
  const ms = performance.now() - startMs;
  await new Promise((resolve) => setTimeout(resolve, 10));
  return { all, within4Ms, ms };
}

Deno.test("paceGlobalImmediates() bounds the callbacks of a wait, and lets the first ones come at once", async () => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "setImmediate");
  assert.ok(before);
  paceGlobalImmediates();
  try {
    let quickest = 0;
    // On a busy machine this thread may have to wait at the start of any one of them.
    for (let attempt = 0; attempt < 50 && quickest === 0; attempt++) {
      const { all, within4Ms, ms } = await callbacksOfWait();
      assert.ok(all <= 50 + ms, `${all} callbacks in ${ms} ms: without a pace there are thousands`);
      quickest = Math.max(quickest, within4Ms);
    }
    assert.ok(quickest >= 1, "no callback at the start of any wait");
  } finally {
    Object.defineProperty(globalThis, "setImmediate", before);
  }
});

Deno.test("paceGlobalImmediates() lets a callback come at once that was queued just before the wait began", async () => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "setImmediate");
  assert.ok(before);
  paceGlobalImmediates();
  try {
    const { promise, resolve } = Promise.withResolvers<void>();
    let turns = 0;
    let turnsToCallback: number | undefined;
    globalThis.setImmediate(() => {
      turnsToCallback = turns;
    });
    const waited = whileTurning(promise);
    for (; turns < 3; turns++) await new Promise((turn) => setImmediate(turn));
    resolve();
    await waited;
    assert.ok(turnsToCallback !== undefined, "not within three turns: a timer of a millisecond held it");
  } finally {
    Object.defineProperty(globalThis, "setImmediate", before);
  }
});

Deno.test("whileTurning() waits patiently for many at a time, and lets the process end after them", async () => {
  const waits = Array.from({ length: 40 }, (_, i) => {
    const pending = new Promise<number>((resolve) => setTimeout(() => resolve(i), i % 7));
    return whileTurning(pending, { isPatient: true });
  });
  assert.deepEqual(await Promise.all(waits), Array.from({ length: 40 }, (_, i) => i));
  await assert.rejects(whileTurning(Promise.reject(new Error("no")), { isPatient: true }), /no/);
});
