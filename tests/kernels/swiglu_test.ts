import assert from "node:assert/strict";
import { floatRows, takeRows } from "../../kernels/rows.ts";
import { swiglu } from "../../kernels/swiglu.ts";
import { swiglu as expectedGate } from "../reference/swiglu.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { ROW_FORM_NMSE, rowValues } from "../support/row_values.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

/** WGSL's exp may err by (3 + 2|x|) ulp: up to 1e-6 of a result here, squared. */
const NMSE = 1e-12;

for (const [rows, width] of [[0, 8], [1, 4], [3, 12], [33, 768]] as const) {
  Deno.test(`swiglu() equals plain loops, [${rows}, ${width}]`, async () => {
    const values = new Random(width).normals(rows * 2 * width, 3);
    const out = fixture.zeros("f32", [rows, width]);
    swiglu(fixture.commands, {
      gateUp: fixture.upload("f32", values, [rows, 2 * width]),
      out: floatRows(out),
      rows,
      width,
    });
    assertClose(await fixture.floats(out), expectedGate(values, width), { nmse: NMSE });
  });
}

Deno.test("swiglu() writes rows as halves", async () => {
  const [rows, width] = [5, 72];
  const values = new Random(width).normals(rows * 2 * width, 3);
  const out = takeRows(fixture.scratch, "gated halves", { form: "f16", rows, cols: width });
  swiglu(fixture.commands, { gateUp: fixture.upload("f32", values, [rows, 2 * width]), out, rows, width });
  const actual = await rowValues(fixture, out, { rows, cols: width });
  assertClose(actual, expectedGate(values, width), { nmse: NMSE + ROW_FORM_NMSE.f16 });
});

Deno.test("swiglu() computes the approximated GELU too", async () => {
  const values = new Random(7).normals(5 * 2 * 64, 3);
  const out = fixture.zeros("f32", [5, 64]);
  const gateUp = fixture.upload("f32", values, [5, 128]);
  swiglu(fixture.commands, { gateUp, out: floatRows(out), rows: 5, width: 64, activation: "gelu_tanh" });
  assertClose(await fixture.floats(out), expectedGate(values, 64, "gelu_tanh"), { nmse: NMSE });
});

Deno.test("swiglu() stays finite at extreme gates", async () => {
  for (const activation of ["silu", "gelu_tanh"] as const) {
    const gateUp = fixture.upload("f32", Float32Array.of(-1e4, -100, 100, 1e4, 1, 1, 1, 1), [1, 8]);
    const out = fixture.zeros("f32", [1, 4]);
    swiglu(fixture.commands, { gateUp, out: floatRows(out), rows: 1, width: 4, activation });
    const [lowest = NaN, low = NaN, high, highest] = await fixture.floats(out);
    assert.ok(Math.abs(lowest) < 1e-29 && Math.abs(low) < 1e-29);
    assert.deepEqual([high, highest], [100, 1e4]);
  }
});
