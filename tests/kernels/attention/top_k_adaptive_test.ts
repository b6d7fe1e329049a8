/** Adaptive sets on the GPU against sorting and adding: the fewest positions that cover a share of the attention. */

import assert from "node:assert/strict";
import { FORCED_LEAST, massOf, neededMass } from "../../../kernels/attention/mass.ts";
import { NO_POSITION, setsOf, type TableRow } from "../../../kernels/attention/row_table.ts";
import { topK } from "../../../kernels/attention/top_k.ts";
import { bestPositions, coveringPositions } from "../../reference/top_k.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

const FLOOR = 16;
const STRIDE = 5003;
const KEPT_STRIDE = 1024;

/** Weights of positions by distribution; they become probabilities. */
const DISTRIBUTIONS: Record<string, (random: Random, position: number, n: number) => number> = {
  random: (random) => random.uniform(),
  "heavily tied": (random) => 1 + random.integer(3),
  peaked: (random) => Math.exp(4 * random.normal()),
  "one dominant position": (_, position, n) => position === n >> 1 ? 1000 * n : 1,
  uniform: () => 1,
  "far below the smallest mass, but for two": (_, position) => position < 2 ? 1 : 1e-20,
  "forced mass alone is enough": (_, position, n) => position < 4 || position >= n - 4 ? n : 1,
};

const ROWS = [
  { n: 0, cap: 64, coverage: 0.9 },
  { n: 1, cap: 64, coverage: 0.9 },
  { n: 40, cap: 64, coverage: 0.9 },
  { n: 300, cap: 300, coverage: 0.5 },
  { n: 300, cap: 64, coverage: 0.98 },
  { n: 4097, cap: 1000, coverage: 0.6 },
  { n: 4097, cap: 1000, coverage: 0.98 },
  { n: 5000, cap: 1000, coverage: 1 },
] as const;

/** f32 probabilities of the visible positions, those of the first and newest four forced; hidden ones are below zero. */
function valuesOf(weights: readonly number[], from = 0): Float32Array {
  const total = weights.slice(from).reduce((sum, weight) => sum + weight, 0);
  return Float32Array.from(weights, (weight, i) => {
    if (i < from) return -1e30;
    const probability = Math.fround(weight / total);
    const forced = i < 4 || i >= weights.length - 4;
    return forced ? Math.max(probability * 2 ** 64, FORCED_LEAST) : probability;
  });
}

interface AdaptiveRow {
  readonly values: Float32Array;
  readonly cap: number;
  readonly coverage: number;
  readonly from?: number;
}

async function select(rows: readonly AdaptiveRow[], chunk?: number) {
  const table: TableRow[] = rows.map(({ values, cap, coverage, from = 0 }) =>
    tableRow({ kvLimit: values.length, kvFrom: from, selected: cap, coverage: neededMass(coverage) })
  );
  const all = new Float32Array(rows.length * STRIDE).fill(7);
  rows.forEach(({ values }, i) => all.set(values, i * STRIDE));
  const positions = fixture.zeros("u32", [rows.length, 1, KEPT_STRIDE]);
  const keptValues = fixture.zeros("f32", [rows.length, 1, KEPT_STRIDE]);
  const tally = fixture.zeros("u32", [rows.length + 2]);
  topK(fixture.commands, {
    heads: 1,
    kvHeads: 1,
    firstRow: 0,
    rows: rows.length,
    rowTable: uploadRows(fixture, table),
    values: fixture.upload("f32", all, [rows.length, 1, STRIDE]),
    stride: STRIDE,
    sets: 1,
    positions,
    keptValues,
    keptStride: KEPT_STRIDE,
    adaptive: { floor: FLOOR, tally, tallyAt: 2, weight: 3 },
    scratch: fixture.scratch,
    ...(chunk !== undefined && { chunk }),
  });
  const [kept, weights] = [await fixture.words(positions), await fixture.floats(keptValues)];
  const counts = await fixture.words(tally);
  assert.deepEqual([...counts.subarray(0, 2)], [0, 0]);
  return rows.map(({ values, cap }, i) => {
    const places = kept.subarray(i * KEPT_STRIDE, (i + 1) * KEPT_STRIDE);
    const counted = Math.min(cap, values.length);
    const length = places.subarray(0, counted).findIndex((position) => position === NO_POSITION);
    const count = length < 0 ? counted : length;
    assert.ok(places.subarray(count, counted).every((position) => position === NO_POSITION), "padded to the end");
    assert.ok(places.subarray(counted).every((position) => position === 0), "and no further");
    assert.equal(counts[i + 2], 3 * count);
    const own = [...places.subarray(0, count)];
    assert.deepEqual([...weights.subarray(i * KEPT_STRIDE, i * KEPT_STRIDE + count)], own.map((at) => values[at]));
    return own;
  });
}

for (const [name, weigh] of Object.entries(DISTRIBUTIONS)) {
  Deno.test(`topK() keeps the fewest positions that cover a share of the attention: ${name}`, async () => {
    const random = new Random(1);
    const rows = ROWS.map(({ n, cap, coverage }) => {
      return { values: valuesOf(Array.from({ length: n }, (_, i) => weigh(random, i, n))), cap, coverage };
    });
    const chosen = await select(rows);
    assert.deepEqual(await select(rows, 2 * KEPT_STRIDE), chosen, "by chunks");
    rows.forEach(({ values, ...goal }, i) => {
      assert.deepEqual(chosen[i], coveringPositions(values, { ...goal, floor: FLOOR }), `row ${i}`);
    });
  });
}

Deno.test("topK() stops at the floor, at the coverage, or at the cap, whichever binds", async () => {
  const even = valuesOf(Array.from({ length: 4000 }, () => 1));
  const forced = valuesOf(Array.from({ length: 4000 }, (_, i) => i < 4 ? 1e6 : 1));
  const dominant = valuesOf(Array.from({ length: 4000 }, (_, i) => i === 1777 ? 1e6 : 1));
  const hidden = valuesOf(Array.from({ length: 400 }, () => 1), 380);
  const chosen = await select([
    { values: even, cap: 1000, coverage: 0.98 },
    { values: even, cap: 1000, coverage: 0.125 },
    { values: forced, cap: 1000, coverage: 0.98 },
    { values: dominant, cap: 1000, coverage: 0.98 },
    { values: dominant, cap: 1000, coverage: 1 },
    { values: hidden, cap: 64, coverage: 0.999, from: 380 },
    { values: hidden.subarray(0, 300), cap: 64, coverage: 0.9, from: 300 },
  ]);
  assert.deepEqual(chosen.map(({ length }) => length), [1000, 501, 16, 16, 1000, 20, 0]);
  assert.ok(chosen[3]?.includes(1777));
  // Of equals the lower position wins: the forced, then the first of the others.
  assert.deepEqual(chosen[2], [...Array.from({ length: 12 }, (_, i) => i), 3996, 3997, 3998, 3999]);
});

Deno.test("topK() chooses for fixed and adaptive rows side by side as for each alone, for every shape of sets", async () => {
  const random = new Random(3);
  const shape = { heads: 4, kvHeads: 2 };
  const coverages = [0.4, undefined, 0.7, undefined, 0.9, undefined];
  const rows = coverages.map((coverage, i) =>
    tableRow({
      kvLimit: 90,
      selected: 40,
      setShape: (["kv_head", "query_head", "all_heads"] as const)[i >> 1] ?? "kv_head",
      coverage: coverage === undefined ? undefined : neededMass(coverage),
    })
  );
  const values = Float32Array.from({ length: rows.length * 4 * 100 }, () => random.uniform() / 45);
  const positions = fixture.zeros("u32", [rows.length, 4, 40]);
  const tally = fixture.zeros("u32", [rows.length]);
  topK(fixture.commands, {
    ...shape,
    firstRow: 0,
    rows: rows.length,
    rowTable: uploadRows(fixture, rows),
    values: fixture.upload("f32", values, [rows.length, 4, 100]),
    stride: 100,
    sets: 4,
    positions,
    keptStride: 40,
    adaptive: { floor: FLOOR, tally, tallyAt: 0, weight: 1 },
    scratch: fixture.scratch,
  });
  const kept = await fixture.words(positions);
  const counts = await fixture.words(tally);
  rows.forEach(({ setShape }, row) => {
    const coverage = coverages[row];
    let count = 0;
    for (let set = 0; set < setsOf(setShape, shape); set++) {
      const own = values.subarray((row * 4 + set) * 100, (row * 4 + set) * 100 + 90);
      const expected = coverage === undefined
        ? bestPositions(own, 40)
        : coveringPositions(own, { cap: 40, floor: FLOOR, coverage });
      const at = (row * 4 + set) * 40;
      assert.deepEqual([...kept.subarray(at, at + expected.length)], expected, `${setShape}, set ${set}`);
      count += expected.length;
    }
    assert.equal(counts[row], coverage === undefined ? 0 : count);
  });
});

Deno.test("massOf() drops what lies below its unit, and weighs forced positions by their probability", () => {
  assert.deepEqual([0.5, 2 ** -29, 2 ** -30, 0, -1e30, 1.5].map(massOf), [2 ** 28, 1, 0, 0, 0, 2 ** 29]);
  assert.deepEqual([0.5 * 2 ** 64, FORCED_LEAST, 2 ** 64].map(massOf), [2 ** 28, 0, 2 ** 29]);
  assert.equal(neededMass(0.5), 2 ** 28);
  assert.ok(neededMass(1) > neededMass(0.999999) * 1.9, "no rounding reaches a coverage of 1");
});
