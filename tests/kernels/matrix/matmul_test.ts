import assert from "node:assert/strict";
import { gatedMatmul, matmul, planMatmul } from "../../../kernels/products/matmul.ts";
import { matrixUnitsOf } from "../../../kernels/matrix_wgsl.ts";
import { floatRows } from "../../../kernels/rows.ts";
import { QUANTIZED_DTYPES, type QuantizedDType } from "../../../kernels/weights/format.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { checkGated, checkGatedBits, describeGated, type GatedCase } from "../gated_cases.ts";
import { describeCase, makeOperands, type ProductCase } from "../product_cases.ts";

const fixture = gpuFixture();

/** Rows of x are rounded to f16, 2^-12 each. */
const HALF_ROWS = 1e-6;

/** Every part of a weight must hold a fragment of results, of 16 × 16 on most hardware: smaller ones go to the plain kernels. */
const CASES: readonly ProductCase[] = [
  { rows: 1, weightRows: 259, cols: 32, dtype: "f16", nmse: HALF_ROWS },
  { rows: 16, weightRows: 256, cols: 64, dtype: "f16", nmse: HALF_ROWS },
  { rows: 37, weightRows: 267, cols: 96, dtype: "f16", nmse: HALF_ROWS },
  { rows: 37, weightRows: 267, cols: 96, dtype: "f16", accumulate: true, nmse: HALF_ROWS },
  { rows: 20, weightRows: 300, cols: 64, dtype: "f16", partBytes: 64 * 2 * 64, accumulate: true, nmse: HALF_ROWS },
  { rows: 37, weightRows: 267, cols: 96, dtype: "q8", accumulate: true, nmse: HALF_ROWS },
  { rows: 20, weightRows: 530, cols: 64, dtype: "q4", partBytes: 12_000, nmse: HALF_ROWS },
  { rows: 17, weightRows: 270, cols: 256, dtype: "q4k", nmse: HALF_ROWS },
  { rows: 17, weightRows: 270, cols: 256, dtype: "q6k", nmse: HALF_ROWS },
];

for (const shape of CASES) {
  Deno.test(`matmul() on matrix units equals plain loops: ${describeCase(shape)}`, async () => {
    const { weight, x, y, expected } = makeOperands(fixture, shape);
    const { rows, accumulate = false } = shape;
    assert.equal(planMatmul(fixture.gpu.info, rows, weight).kind, "matrix");
    matmul(fixture.commands, { weight, x, y, rows, accumulate, scratch: fixture.scratch });
    assertClose(await fixture.floats(y), expected, { nmse: shape.nmse });
    freeWeight(fixture.gpu, weight);
  });
}

/** All by one kernel, or by none of its own: this driver takes seconds to compile one. */
const GATED: readonly GatedCase[] = [
  { rows: 1, weightRows: 32, cols: 32, dtype: "f16", form: "f16", activation: "silu", nmse: HALF_ROWS },
  { rows: 37, weightRows: 272, cols: 96, dtype: "f16", form: "f16", activation: "silu", nmse: HALF_ROWS },
  {
    ...{ rows: 20, weightRows: 144, cols: 96, dtype: "f16", partBytes: 96 * 2 * 64 },
    ...{ form: "f16", activation: "silu", nmse: HALF_ROWS },
  },
];

for (const shape of GATED) {
  Deno.test(`gatedMatmul() on matrix units equals plain loops: ${describeGated(shape)}`, async () => {
    await checkGated(fixture, shape, (product) => gatedMatmul(fixture.commands, product));
  });
}

Deno.test("gatedMatmul() on matrix units has the bits of the product, whatever the number of rows", async () => {
  const ranges = [[0, 37], [0, 1], [3, 9], [17, 16]] as const;
  await checkGatedBits(fixture, { rows: 37, weightRows: 272, cols: 64, form: "f16", ranges }, () => ({
    gated: (product) => gatedMatmul(fixture.commands, product),
    product: (product) => matmul(fixture.commands, product),
  }));
});

/** Random halves, the same for the same generator. */
function randomHalves(random: Random, rows: number, cols: number): Weight {
  const weight = createWeight(fixture.gpu, "bits", { rows, cols, dtype: "f16" });
  const data = new Uint8Array(random.halves(rows * cols).halves.buffer);
  writeRows(fixture, weight, { firstRow: 0, source: "F16", data });
  return weight;
}

Deno.test("matmul() on matrix units gives a row the same bits alone and among others, within a tile and at its edge", async () => {
  const [cols, weightRows, rows] = [64, 262, 50];
  const random = new Random(6);
  const weight = randomHalves(random, weightRows, cols);
  const values = random.normals(rows * cols);
  const before = random.normals(rows * weightRows);
  const run = async (first: number, count: number) => {
    const x = floatRows(fixture.upload("f32", values.slice(first * cols, (first + count) * cols), [count, cols]));
    const y = fixture.upload("f32", before.slice(first * weightRows, (first + count) * weightRows), [
      count,
      weightRows,
    ]);
    matmul(fixture.commands, { weight, x, y, rows: count, accumulate: true, scratch: fixture.scratch });
    return new Uint32Array((await fixture.floats(y)).buffer);
  };
  const together = await run(0, rows);
  for (const [first, count] of [[0, 1], [3, 9], [17, 33]] as const) {
    assert.deepEqual(await run(first, count), together.slice(first * weightRows, (first + count) * weightRows));
  }
  freeWeight(fixture.gpu, weight);
});

Deno.test("matmul() on matrix units adds in the same order whatever the depth and the size of a tile", async () => {
  const [cols, weightRows, rows] = [64, 80, 20];
  const random = new Random(7);
  const weight = randomHalves(random, weightRows, cols);
  const x = floatRows(fixture.upload("f32", random.normals(rows * cols), [rows, cols]));
  const units = matrixUnitsOf(fixture.gpu.info);
  assert.ok(units);
  const { m, n, k } = units.shape;
  const run = async (depth: number, parts: number) => {
    const tile = { rows: parts * m, outputs: 2 * parts * n, depth, subgroupRows: m, subgroupOutputs: 2 * n };
    const y = fixture.zeros("f32", [rows, weightRows]);
    matmul(fixture.commands, { weight, x, y, rows, scratch: fixture.scratch }, {
      ...{ kind: "matrix", ...units, tile, decoded: false },
    });
    return new Uint32Array((await fixture.floats(y)).buffer);
  };
  const expected = await run(2 * k, 1);
  // The software driver compiles for seconds.
  for (const [depth, parts] of [[4 * k, 1], [2 * k, 2]] as const) assert.deepEqual(await run(depth, parts), expected);
  freeWeight(fixture.gpu, weight);
});

for (const dtype of gateCases<readonly QuantizedDType[]>(["q5k"], QUANTIZED_DTYPES)) {
  Deno.test(`matmul() on matrix units has the same bits with ${dtype} decoded in memory first`, async () => {
    const shape = { rows: 20, weightRows: 530, cols: 256, dtype, partBytes: 80_000, accumulate: true, nmse: HALF_ROWS };
    const { weight, x, y, expected } = makeOperands(fixture, shape);
    assert.ok(weight.parts.length > 1);
    const { rows, weightRows } = shape;
    const plan = planMatmul(fixture.gpu.info, rows, weight);
    assert.ok(plan.kind === "matrix" && !plan.decoded);
    const before = await fixture.floats(y);
    const product = { weight, x, rows, accumulate: true, scratch: fixture.scratch };
    const decoded = fixture.upload("f32", before, [rows, weightRows]);
    matmul(fixture.commands, { ...product, y }, plan);
    matmul(fixture.commands, { ...product, y: decoded }, { ...plan, decoded: true });
    const results = await fixture.floats(decoded);
    assertClose(results, expected, { nmse: shape.nmse });
    assert.deepEqual(new Uint32Array(results.buffer), new Uint32Array((await fixture.floats(y)).buffer));
    freeWeight(fixture.gpu, weight);
  });
}
