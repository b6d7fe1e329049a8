/** The exact merge of candidates against a full sort of the whole cache, and what is remembered of it. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { ADAPTIVE_FLOOR } from "../../../engine/layer_plan.ts";
import type { PositionList } from "../../../engine/exchange.ts";
import { FORCED_LEAST } from "../../../kernels/attention/mass.ts";
import { chooseBest } from "../../../router/group/choose_positions.ts";
import { SelectionRecord } from "../../../router/group/selection_record.ts";
import { coveringPositions } from "../../reference/top_k.ts";

interface Entry {
  readonly position: number;
  readonly value: number;
}

function best(entries: readonly Entry[], budget: number): readonly Entry[] {
  const sorted = [...entries].sort((a, b) => b.value - a.value || a.position - b.position);
  return sorted.slice(0, budget).sort((a, b) => a.position - b.position);
}

function listOf(entries: readonly Entry[]): PositionList {
  return {
    positions: Uint32Array.from(entries, ({ position }) => position),
    values: Float32Array.from(entries, ({ value }) => value),
  };
}

const FORCED = Math.fround(3e38);

Deno.test("chooseBest() of the workers' best is the best of the whole cache, with heavy ties", () => {
  const value = fc.oneof(
    fc.constantFrom(0, -0, 0.25, 0.5, FORCED, -1),
    fc.float({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(1e-38, 1e-45, -1e-45),
  );
  const cache = fc.array(fc.record({ value, owner: fc.nat(3), gap: fc.integer({ min: 1, max: 300 }) }), {
    maxLength: 200,
  });
  fc.assert(
    fc.property(cache, fc.integer({ min: 0, max: 210 }), (rows, budget) => {
      let position = -1;
      const entries = rows.map(({ value, owner, gap }) => ({
        value: Math.fround(value),
        owner,
        position: position += gap,
      }));
      const lists = [0, 1, 2, 3].map((worker) => listOf(best(entries.filter(({ owner }) => owner === worker), budget)));
      const chosen = chooseBest(lists, { budget });
      assert.deepEqual([...chosen], best(entries, budget).map(({ position }) => position));
    }),
    { numRuns: 300 },
  );
});

Deno.test("chooseBest() with a coverage takes what one worker would that holds the whole cache", () => {
  const weight = fc.oneof(fc.constantFrom(0, 1, 1, 5), fc.double({ min: 0, max: 1, noNaN: true }), fc.constant(1e-9));
  const cache = fc.array(fc.record({ weight, owner: fc.nat(2) }), { minLength: 1, maxLength: 120 });
  const goals = fc.record({
    cap: fc.integer({ min: 16, max: 130 }),
    coverage: fc.oneof(fc.constantFrom(1, 0.5), fc.double({ min: 0.01, max: 1, noNaN: true })),
  });
  fc.assert(
    fc.property(cache, goals, (rows, { cap, coverage }) => {
      const total = rows.reduce((sum, { weight }) => sum + weight, 1e-6);
      const values = rows.map(({ weight }, i) => {
        const forced = i < 4 || i >= rows.length - 4;
        return Math.fround(forced ? Math.max(weight / total * 2 ** 64, FORCED_LEAST) : weight / total);
      });
      const goal = { cap, coverage, floor: ADAPTIVE_FLOOR };
      const lists = [0, 1, 2].map((worker) => {
        const own = [...rows.keys()].filter((i) => rows[i]?.owner === worker);
        // Each puts forward what would be enough if there was nothing else.
        const kept = coveringPositions(own.map((i) => values[i] ?? NaN), goal).map((at) => own[at] ?? NaN);
        return listOf(kept.map((position) => ({ position, value: values[position] ?? NaN })));
      });
      const chosen = chooseBest(lists, { budget: cap, coverage });
      assert.deepEqual([...chosen], coveringPositions(values, goal));
    }),
    { numRuns: 300 },
  );
});

Deno.test("chooseBest() takes all when there are not more than the budget, and none of nothing", () => {
  const lists = [listOf([{ position: 4, value: 0 }]), listOf([]), listOf([{ position: 1, value: 1 }])];
  assert.deepEqual(chooseBest(lists, { budget: 2 }), Uint32Array.of(1, 4));
  assert.deepEqual(chooseBest([], { budget: 16 }), new Uint32Array(0));
});

Deno.test("chooseBest() refuses what no worker should send", () => {
  const twice = [listOf([{ position: 4, value: 0 }]), listOf([{ position: 4, value: 1 }])];
  const nothing = [listOf([{ position: 4, value: NaN }])];
  const short = [{ positions: Uint32Array.of(1, 2), values: Float32Array.of(1) }];
  for (const lists of [twice, nothing, short]) {
    assert.throws(() => chooseBest(lists, { budget: 2 }), { code: "protocol", message: /Cannot choose positions/ });
  }
});

Deno.test("SelectionRecord keeps the newest selection of each layer, for the sequences selected for last", () => {
  const record = new SelectionRecord(2);
  const [a, b, c] = [Uint32Array.of(1), Uint32Array.of(2), Uint32Array.of(3)];
  const row = (sequence: number, position: number, sets = 1) => ({ sequence, position, budget: 16, sets });
  record.note(6, [row(1, 10, 2), row(2, 20)], [a, b, c]);
  record.note(2, [row(1, 10)], [c]);
  assert.deepEqual(record.of(1), [{ layer: 2, position: 10, sets: [c] }, { layer: 6, position: 10, sets: [a, b] }]);
  record.note(6, [row(1, 11)], [b]);
  assert.deepEqual(record.of(1).at(-1), { layer: 6, position: 11, sets: [b] });
  assert.deepEqual(record.of(2), [{ layer: 6, position: 20, sets: [c] }]);
  record.note(6, [row(3, 5)], [a]);
  assert.deepEqual(record.of(2), []);
  assert.equal(record.of(1).length, 2);
});
