/** The model starts careful, learns a machine of any speed within a few steps, and shrugs off hiccups. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { MeasuredStep } from "../../../engine/engine_info.ts";
import { contextOf, CostModel, NO_LOAD, type StepLoad } from "../../../router/scheduling/cost_model.ts";

/** A group of GPUs that was not measured. */
const NOTHING_MEASURED = { measured: [], software: false };

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

Deno.test("CostModel.deadlineMs() lets a hang be noticed within 10 s of steps up to 2.5 s, and never before 3 × + 2 s", () => {
  const deadlineOf = (ms: number, { software = false }: { readonly software?: boolean } = {}) => {
    const costs = new CostModel();
    costs.settle(1, { measured: [{ kind: "dense", rows: 1, context: 10, ms }], software });
    return { predictedMs: costs.predictMs(decode(1, 10)), deadlineMs: costs.deadlineMs(decode(1, 10)) };
  };
  const [quick, slow, slowest] = [deadlineOf(20), deadlineOf(2000), deadlineOf(20_000)];
  assert.equal(quick.deadlineMs, 5 * quick.predictedMs + 5000);
  assert.equal(slow.deadlineMs, 9500);
  assert.equal(slowest.deadlineMs, 3 * slowest.predictedMs + 2000);
  assert.equal(deadlineOf(20, { software: true }).deadlineMs, 9500, "a kernel may have to be made first");
  assert.equal(deadlineOf(20_000, { software: true }).deadlineMs, slowest.deadlineMs);
  assert.ok(
    new CostModel().deadlineMs(decode(1, 10)) < 10_000,
    "nothing is cold: workers are warm when they are ready",
  );
});

Deno.test("CostModel predicts a positive, finite time and more rows never cost less, whatever it has learned", () => {
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

Deno.test("CostModel.settle() keeps what it learned of as many workers, and finds it again after a smaller group", () => {
  const costs = new CostModel();
  costs.settle(2, NOTHING_MEASURED);
  const load = decode(4, 1000);
  const guess = costs.predictMs(load);
  for (let i = 0; i < 50; i++) costs.learn(load, 3);
  const learnt = costs.predictMs(load);
  assert.ok(learnt < guess / 2);
  costs.settle(2, NOTHING_MEASURED);
  assert.equal(costs.predictMs(load), learnt);
  costs.settle(1, NOTHING_MEASURED);
  assert.equal(costs.predictMs(load), guess);
  costs.settle(2, NOTHING_MEASURED);
  assert.equal(costs.predictMs(load), learnt);
});

Deno.test("CostModel.settle() starts from what the workers measured, on slow machines and fast ones", () => {
  for (const factor of [0.01, 1, 300]) {
    const costs = new CostModel();
    const measured: MeasuredStep[] = [
      { kind: "prefill", rows: 24, context: 300, ms: 100 * factor },
      { kind: "dense", rows: 1, context: 25, ms: 10 * factor },
      { kind: "correction", rows: 8, context: 180, ms: 80 * factor },
    ];
    costs.settle(1, { measured, software: false });
    for (const [load, ms] of [[prefill(0, 24), 100], [decode(1, 25), 10]] as const) {
      const predicted = costs.predictMs(load) / factor;
      assert.ok(predicted > 0.6 * ms && predicted < 2 * ms, `${predicted} ms predicted, ${ms} measured, × ${factor}`);
    }
  }
});
