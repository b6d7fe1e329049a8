/** Frequencies of every scaling against their definitions; the fixtures' logits test them again through the oracle. */

import assert from "node:assert/strict";

import { ropeFrequencies, rotations } from "../../../engine/model/rope.ts";
import type { RopeScaling } from "../../../engine/model/rope_config.ts";

const frequenciesOf = (ropeScaling: RopeScaling, headDim = 8) =>
  ropeFrequencies({ headDim, ropeTheta: 10000, ropeScaling });

const PLAIN = [1, 0.1, 0.01, 0.001];

function assertClose(actual: Float64Array, expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  expected.forEach((value, i) =>
    assert.ok(Math.abs((actual[i] ?? NaN) / value - 1) < 1e-12, `${actual[i]} ≠ ${value}`)
  );
}

Deno.test("ropeFrequencies() without scaling is theta^(-2i/headDim)", () => {
  const { inverseFrequencies, scale } = frequenciesOf({ kind: "none" });
  assertClose(inverseFrequencies, PLAIN);
  assert.equal(scale, 1);
});

Deno.test("ropeFrequencies() linear divides by the factor", () => {
  assertClose(frequenciesOf({ kind: "linear", factor: 4 }).inverseFrequencies, PLAIN.map((f) => f / 4));
});

Deno.test("ropeFrequencies() llama3 keeps short waves, stretches long ones and blends between", () => {
  const scaling = { kind: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalPositions: 1000 } as const;
  // Wavelengths 6.3, 63, 628, 6283: below 250, below 250, between, above 1000.
  const smooth = (1000 / (2 * Math.PI / 0.01) - 1) / 3;
  assertClose(frequenciesOf(scaling).inverseFrequencies, [1, 0.1, (1 - smooth) * 0.01 / 8 + smooth * 0.01, 0.001 / 8]);
});

Deno.test("ropeFrequencies() yarn ramps from kept to stretched and scales the attention", () => {
  const scaling = {
    kind: "yarn",
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    originalPositions: 1000,
    attentionFactor: 1.2,
  } as const;
  // The ramp runs from dimension floor(0.70) = 0 to ceil(2.20) = 3.
  const { inverseFrequencies, scale } = frequenciesOf(scaling);
  const mix = (frequency: number, ramp: number) => ramp * frequency / 4 + (1 - ramp) * frequency;
  assertClose(inverseFrequencies, [1, mix(0.1, 1 / 3), mix(0.01, 2 / 3), 0.001 / 4]);
  assert.equal(scale, 1.2);
});

Deno.test("ropeFrequencies() yarn survives a ramp without width", () => {
  const scaling = {
    kind: "yarn",
    factor: 4,
    betaFast: 1e-3,
    betaSlow: 1e-3,
    originalPositions: 1e6,
    attentionFactor: 1,
  } as const;
  for (const value of frequenciesOf(scaling, 2).inverseFrequencies) assert.ok(Number.isFinite(value));
});

Deno.test("rotations() gives cosine and sine by row and frequency, scale included", () => {
  const table = rotations({ inverseFrequencies: Float64Array.of(1, 0.5), scale: 2 }, Uint32Array.of(0, 3));
  const expected = [2, 0, 2, 0, 2 * Math.cos(3), 2 * Math.sin(3), 2 * Math.cos(1.5), 2 * Math.sin(1.5)];
  assert.deepEqual(table, Float32Array.from(expected));
  assert.equal(rotations({ inverseFrequencies: Float64Array.of(1), scale: 1 }, new Uint32Array(0)).length, 0);
});

Deno.test("rotations() keeps the phase of far positions", () => {
  const [cosine] = rotations({ inverseFrequencies: Float64Array.of(0.1), scale: 1 }, Uint32Array.of(1_000_003));
  // 1,000,003 × 0.1 in f32 would be off by up to 0.004.
  assert.equal(cosine, Math.fround(Math.cos(1_000_003 * 0.1)));
});

Deno.test("rotations() gives a position the same bits alone and in a prompt, those of its own cosine and sine", () => {
  const frequencies = frequenciesOf({ kind: "none" }, 128);
  const { inverseFrequencies } = frequencies;
  const positions = Uint32Array.from({ length: 200 }, (_, i) => 131_000 + i);
  const together = rotations(frequencies, positions);
  for (const [row, position] of positions.entries()) {
    const alone = rotations(frequencies, Uint32Array.of(position));
    assert.deepEqual(alone, together.slice(row * 128, (row + 1) * 128));
    // The next position at the same distance in its block, so that the block kept from the last call changes.
    rotations(frequencies, Uint32Array.of(position + 64));
    inverseFrequencies.forEach((frequency, i) => {
      // f64 sums of two products, rounded to f32: half a unit of 2^-24, and a little.
      assert.ok(Math.abs((alone[2 * i] ?? NaN) - Math.cos(position * frequency)) < 6.1e-8);
      assert.ok(Math.abs((alone[2 * i + 1] ?? NaN) - Math.sin(position * frequency)) < 6.1e-8);
    });
  }
});
