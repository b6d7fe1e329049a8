import assert from "node:assert/strict";
import { GpuError } from "../../kernels/errors.ts";
import { type NormCut, normCut, rmsNorm } from "../../kernels/rms_norm.ts";
import { floatRows, type RowForm, takeRows } from "../../kernels/rows.ts";
import { rmsNorm as expectedNorm } from "../reference/rms_norm.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { ROW_FORM_NMSE, rowValues } from "../support/row_values.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

/** A sum of squares, a root and two products in f32: relative errors of a few 2⁻²⁴, squared. */
const NMSE = 1e-13;

const SHAPES: readonly (readonly [rows: number, cols: number, size: number])[] = [
  [0, 64, 1],
  [1, 4, 1],
  [5, 12, 100],
  [300, 128, 1],
  [7, 260, 1e-3],
  [3, 4096, 30],
  [70001, 4, 1],
];

async function normed(
  [rows, cols, size]: readonly [rows: number, cols: number, size: number],
  { form, cut }: { readonly form: RowForm; readonly cut?: NormCut },
): Promise<{ readonly actual: Float64Array; readonly expected: Float64Array }> {
  const random = new Random(cols);
  const x = random.normals(rows * cols, size);
  const weight = random.normals(cols);
  const out = takeRows(fixture.scratch, `normed, ${form}`, { form, rows, cols });
  const operands = {
    x: fixture.upload("f32", x, [rows, cols]),
    weight: fixture.upload("f32", weight, [cols]),
    ...{ out, rows, cols, epsilon: 1e-5 },
  };
  rmsNorm(fixture.commands, operands, cut);
  return { actual: await rowValues(fixture, out, { rows, cols }), expected: expectedNorm(x, weight, 1e-5) };
}

for (const shape of SHAPES) {
  const [rows, cols, size] = shape;
  Deno.test(`rmsNorm() equals plain loops, [${rows}, ${cols}] of size ${size}`, async () => {
    const { actual, expected } = await normed(shape, { form: "f32" });
    assertClose(actual, expected, { nmse: NMSE });
  });
}

Deno.test("rmsNorm() writes rows as halves", async () => {
  const { actual, expected } = await normed([7, 264, 30], { form: "f16" });
  assertClose(actual, expected, { nmse: NMSE + ROW_FORM_NMSE.f16 });
});

for (const [threads, by] of [[64, "a tree"], [32, "a tree"], [64, "subgroups"]] as const) {
  Deno.test(`rmsNorm() equals plain loops by ${threads} threads and ${by}`, async () => {
    const subgroupSize = by === "subgroups" ? fixture.gpu.info.subgroupSize : undefined;
    assert.ok(by === "a tree" || subgroupSize !== undefined, "this adapter has no subgroups of one size");
    const { actual, expected } = await normed([7, 260, 1e-3], {
      form: "f32",
      cut: { threads, quads: 65, subgroupSize },
    });
    assertClose(actual, expected, { nmse: NMSE });
  });
}

Deno.test("normCut() gives each vector a thread on GPUs, and several on software adapters", () => {
  const hardware = { software: false, maxInvocations: 1024, subgroups: true, subgroupSize: 32 };
  assert.deepEqual(normCut(hardware, 4096), { threads: 1024, quads: 1024, subgroupSize: 32 });
  assert.deepEqual(normCut(hardware, 4), { threads: 32, quads: 1, subgroupSize: 32 });
  assert.deepEqual(normCut({ ...hardware, subgroupSize: 64 }, 4), { threads: 32, quads: 1, subgroupSize: undefined });
  assert.deepEqual(normCut({ ...hardware, software: true }, 4096).threads, 256);
});

Deno.test("rmsNorm() adds to what is there", async () => {
  const random = new Random(3);
  const [x, before, weight] = [random.normals(2 * 64), random.normals(2 * 64), random.normals(64)];
  const out = fixture.upload("f32", before, [2, 64]);
  const given = { x: fixture.upload("f32", x, [2, 64]), weight: fixture.upload("f32", weight, [64]) };
  const sum = floatRows(out);
  rmsNorm(fixture.commands, { ...given, out: sum, rows: 2, cols: 64, epsilon: 1e-5, accumulate: true });
  const expected = expectedNorm(x, weight, 1e-5).map((value, i) => value + (before[i] ?? NaN));
  assertClose(await fixture.floats(out), expected, { nmse: NMSE });
});

Deno.test("rmsNorm() of zeros is zero", async () => {
  const [x, out] = [fixture.zeros("f32", [2, 64]), fixture.zeros("f32", [2, 64])];
  const weight = fixture.upload("f32", new Float32Array(64).fill(2), [64]);
  rmsNorm(fixture.commands, { x, weight, out: floatRows(out), rows: 2, cols: 64, epsilon: 1e-6 });
  assert.deepEqual(await fixture.floats(out), new Float32Array(128));
});

Deno.test("rmsNorm() refuses to add to halves", () => {
  const x = fixture.zeros("f32", [1, 8]);
  const out = takeRows(fixture.scratch, "no sum", { form: "f16", rows: 1, cols: 8 });
  const operands = { x, weight: x, out, rows: 1, cols: 8, epsilon: 1e-6, accumulate: true };
  assert.throws(() => rmsNorm(fixture.commands, operands), /no sum is rows of form f16, expected f32/);
});

Deno.test("rmsNorm() refuses a width that is not a multiple of 4", () => {
  const x = fixture.zeros("f32", [1, 6]);
  const operands = { x, weight: x, out: floatRows(x), rows: 1, cols: 6, epsilon: 1e-6 };
  assert.throws(() => rmsNorm(fixture.commands, operands), GpuError);
});
