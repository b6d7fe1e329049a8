import assert from "node:assert/strict";
import { GpuError } from "../../kernels/errors.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { rmsNorm as expectedNorm } from "../reference/rms_norm.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

/** A sum of squares, a root and two products in f32: relative errors of a few 2⁻²⁴, squared. */
const NMSE = 1e-13;

for (
  const [rows, cols, size] of [[0, 64, 1], [1, 4, 1], [5, 12, 100], [300, 128, 1], [7, 260, 1e-3], [3, 4096, 30], [
    70001,
    4,
    1,
  ]]
) {
  Deno.test(`rmsNorm() equals plain loops, [${rows}, ${cols}] of size ${size}`, async () => {
    const [count, width] = [Number(rows), Number(cols)];
    const random = new Random(width);
    const x = random.normals(count * width, Number(size));
    const weight = random.normals(width);
    const out = fixture.zeros("f32", [count, width]);
    rmsNorm(fixture.commands, {
      x: fixture.upload("f32", x, [count, width]),
      weight: fixture.upload("f32", weight, [width]),
      out,
      rows: count,
      cols: width,
      epsilon: 1e-5,
    });
    assertClose(await fixture.floats(out), expectedNorm(x, weight, 1e-5), { nmse: NMSE });
  });
}

Deno.test("rmsNorm() adds to what is there", async () => {
  const random = new Random(3);
  const [x, before, weight] = [random.normals(2 * 64), random.normals(2 * 64), random.normals(64)];
  const out = fixture.upload("f32", before, [2, 64]);
  const given = { x: fixture.upload("f32", x, [2, 64]), weight: fixture.upload("f32", weight, [64]), out };
  rmsNorm(fixture.commands, { ...given, rows: 2, cols: 64, epsilon: 1e-5, accumulate: true });
  const expected = expectedNorm(x, weight, 1e-5).map((value, i) => value + (before[i] ?? NaN));
  assertClose(await fixture.floats(out), expected, { nmse: NMSE });
});

Deno.test("rmsNorm() of zeros is zero", async () => {
  const [x, out] = [fixture.zeros("f32", [2, 64]), fixture.zeros("f32", [2, 64])];
  const weight = fixture.upload("f32", new Float32Array(64).fill(2), [64]);
  rmsNorm(fixture.commands, { x, weight, out, rows: 2, cols: 64, epsilon: 1e-6 });
  assert.deepEqual(await fixture.floats(out), new Float32Array(128));
});

Deno.test("rmsNorm() refuses a width that is not a multiple of 4", () => {
  const x = fixture.zeros("f32", [1, 6]);
  const operands = { x, weight: x, out: x, rows: 1, cols: 6, epsilon: 1e-6 };
  assert.throws(() => rmsNorm(fixture.commands, operands), GpuError);
});
