import assert from "node:assert/strict";
import { bf16ToF32, bf16ToHalf, fromHalf, MAX_HALF, toHalf } from "../../kernels/half.ts";

const ALL = Uint16Array.from({ length: 65536 }, (_, pattern) => pattern);

/** What a pattern stands for, from the definition of the format. */
function valueOf(pattern: number): number {
  const sign = pattern >> 15 ? -1 : 1;
  const exponent = (pattern >> 10) & 31;
  const fraction = pattern & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

Deno.test("fromHalf() gives every pattern its value", () => {
  const values = fromHalf(ALL);
  ALL.forEach((pattern) => assert.ok(Object.is(values[pattern], valueOf(pattern)), `pattern ${pattern}`));
});

Deno.test("toHalf() turns every value back into its pattern", () => {
  const back = toHalf(fromHalf(ALL));
  ALL.forEach((pattern) => {
    if (!Number.isNaN(valueOf(pattern))) assert.equal(back[pattern], pattern);
    else assert.ok(Number.isNaN(valueOf(back[pattern] ?? 0)), `pattern ${pattern}`);
  });
});

Deno.test("toHalf() rounds to the nearest, ties to even, between all neighbours", () => {
  for (let pattern = 0; pattern < 0x7bff; pattern++) {
    const [low, high] = [valueOf(pattern), valueOf(pattern + 1)];
    const middle = (low + high) / 2;
    const even = pattern % 2 === 0 ? pattern : pattern + 1;
    const step = (high - low) / 1024;
    assert.deepEqual([...toHalf([middle, middle - step, middle + step])], [even, pattern, pattern + 1]);
    assert.deepEqual([...toHalf([-middle])], [even | 0x8000]);
  }
});

Deno.test("toHalf() overflows to infinity only halfway beyond the largest", () => {
  assert.deepEqual([...fromHalf(toHalf([MAX_HALF, 65519.9, 65520, -1e30]))], [65504, 65504, Infinity, -Infinity]);
});

Deno.test("bf16ToF32() puts the pattern into the upper half", () => {
  assert.deepEqual([...bf16ToF32(Uint16Array.of(0x3f80, 0xc000, 0x0001, 0x7f7f))], [
    1,
    -2,
    2 ** -133,
    Math.fround(3.3895313892515355e38),
  ]);
});

Deno.test("bf16ToHalf() rounds every pattern as by way of f32", () => {
  assert.deepEqual(bf16ToHalf(ALL), toHalf(bf16ToF32(ALL)));
});
