/** The model starts careful, learns a machine of any speed within a few steps, and shrugs off hiccups. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { contextOf, CostModel, NO_LOAD, type StepLoad } from "../../../router/scheduling/cost_model.ts";

function prefill(from: number, rows: number): StepLoad {
  return { ...NO_LOAD, kinds: ["prefill"], prefillRows: rows, prefillContext: contextOf(from, rows) };
}

function decode(rows: number, context: number): StepLoad {
  return { ...NO_LOAD, kinds: ["dense"], decodeRows: rows, decodeContext: rows * context };
}

/** A machine: milliseconds per step, prefill row, prefill row × position, decode row, decode row × position. */
function timeOn(machine: readonly number[], load: StepLoad): number {
  const [base = 0, row = 0, seen = 0, decoded = 0, read = 0] = machine;
  return base + row * load.prefillRows + seen * load.prefillContext + decoded * load.decodeRows +
    read * load.decodeContext;
}

Deno.test("contextOf() sums what consecutive rows see", () => {
  assert.equal(contextOf(0, 1), 1);
  assert.equal(contextOf(10, 3), 11 + 12 + 13);
});

Deno.test("CostModel learns machines from an H200 to a software adapter within 30 %", () => {
  const machines = [[1, 0.05, 1e-6, 0.5, 1e-5], [3, 0.8, 2e-5, 4, 1e-4], [10, 12, 5e-4, 25, 5e-3], [50, 60, 0, 80, 0]];
  for (const machine of machines) {
    const costs = new CostModel();
    for (let i = 0; i < 60; i++) {
      const load = i % 2 === 0 ? prefill(64 * i, 16 + (i * 37) % 500) : decode(1 + i % 8, 100 * i);
      costs.learn(load, timeOn(machine, load));
    }
    for (const load of [prefill(0, 256), prefill(3000, 128), decode(1, 500), decode(16, 4000)]) {
      const [predicted, real] = [costs.predictMs(load), timeOn(machine, load)];
      assert.ok(Math.abs(predicted - real) < 0.3 * real, `${predicted} ms predicted, ${real} ms real on ${machine}`);
    }
  }
});

Deno.test("CostModel believes a single slow step only so far", () => {
  const costs = new CostModel();
  for (let i = 0; i < 50; i++) costs.learn(decode(4, 1000), 10);
  costs.learn(decode(4, 1000), 60_000);
  assert.ok(costs.predictMs(decode(4, 1000)) < 15);
});

Deno.test("CostModel.deadlineMs() is patient with kinds that may compile shaders, then 5 × + 5 s", () => {
  const costs = new CostModel();
  assert.equal(costs.deadlineMs(decode(1, 10)), 120_000);
  for (let i = 0; i < 3; i++) costs.learn(decode(1, 10), 20);
  assert.equal(costs.deadlineMs(decode(1, 10)), 5 * costs.predictMs(decode(1, 10)) + 5000);
  assert.equal(costs.deadlineMs(prefill(0, 64)), 120_000);
  costs.coolDown(1);
  assert.equal(costs.deadlineMs(decode(1, 10)), 120_000);
  assert.ok(costs.deadlineMs(NO_LOAD) < 10_000);
});

Deno.test("CostModel predicts a positive, finite time and more rows never cost less, whatever it was told", () => {
  const load = fc.oneof(
    fc.tuple(fc.nat(10_000), fc.integer({ min: 1, max: 2048 })).map(([from, rows]) => prefill(from, rows)),
    fc.tuple(fc.integer({ min: 1, max: 32 }), fc.nat(10_000)).map(([rows, context]) => decode(rows, context)),
  );
  const ms = fc.oneof(fc.double({ min: 0, max: 1e6, noNaN: true }), fc.constantFrom(NaN, Infinity, 0));
  fc.assert(fc.property(fc.array(fc.tuple(load, ms), { maxLength: 50 }), (steps) => {
    const costs = new CostModel();
    for (const [load, took] of steps) costs.learn(load, took);
    const [few, many] = [costs.predictMs(prefill(100, 16)), costs.predictMs(prefill(100, 1600))];
    assert.ok(few > 0 && few <= many && Number.isFinite(many), `${few} and ${many}`);
  }));
});

Deno.test("CostModel.coolDown() keeps what it knows of as many workers, and forgets it when they are more or fewer", () => {
  const costs = new CostModel();
  const load: StepLoad = { ...NO_LOAD, kinds: ["dense"], decodeRows: 4, decodeContext: 1000 };
  const guess = costs.predictMs(load);
  for (let i = 0; i < 50; i++) costs.learn(load, 3);
  const learnt = costs.predictMs(load);
  assert.ok(learnt < guess / 2);
  costs.coolDown(1);
  assert.equal(costs.predictMs(load), learnt);
  assert.equal(costs.deadlineMs(load), 120_000, "its shaders are cold");
  costs.coolDown(2);
  assert.equal(costs.predictMs(load), guess);
  for (let i = 0; i < 50; i++) costs.learn(load, 2);
  assert.ok(costs.predictMs(load) < guess / 2, "it learns again");
});
