import assert from "node:assert/strict";
import { GpuError } from "../../kernels/errors.ts";
import { normColumns } from "../../kernels/norm_columns.ts";
import { rmsNorm as expectedNorm } from "../reference/rms_norm.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

/** A sum of squares, a root and two products in f32: relative errors of a few 2⁻²⁴, squared. */
const NMSE = 1e-13;

for (
  const { rows, width, from, cols } of [
    { rows: 0, width: 16, from: 0, cols: 8 },
    { rows: 1, width: 4, from: 0, cols: 4 },
    { rows: 5, width: 24, from: 8, cols: 12 },
    { rows: 33, width: 768, from: 512, cols: 256 },
    { rows: 2, width: 6144, from: 0, cols: 4096 },
  ]
) {
  Deno.test(`normColumns() equals plain loops, ${from} + ${cols} of [${rows}, ${width}]`, async () => {
    const random = new Random(width);
    const values = random.normals(rows * width, 3);
    const weight = random.normals(cols);
    const x = fixture.upload("f32", values, [rows, width]);
    const epsilon = 1e-5;
    normColumns(fixture.commands, {
      x,
      rows,
      width,
      from,
      cols,
      weight: fixture.upload("f32", weight, [cols]),
      epsilon,
    });
    const expected = Float64Array.from(values);
    for (let row = 0; row < rows; row++) {
      const at = row * width + from;
      expected.set(expectedNorm(values.subarray(at, at + cols), weight, epsilon), at);
    }
    assertClose(await fixture.floats(x), expected, { nmse: NMSE });
  });
}

Deno.test("normColumns() refuses columns beyond the row and widths that are no multiple of 4", () => {
  const x = fixture.zeros("f32", [1, 8]);
  for (const [from, cols] of [[4, 8], [2, 4], [0, 6]] as const) {
    const operands = { x, rows: 1, width: 8, from, cols, weight: x, epsilon: 1e-6 };
    assert.throws(() => normColumns(fixture.commands, operands), GpuError);
  }
});
