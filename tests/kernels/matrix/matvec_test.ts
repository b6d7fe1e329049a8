import assert from "node:assert/strict";
import { matvec, planDenseRows } from "../../../kernels/products/matvec.ts";
import { createWeight, freeWeight, writeRows } from "../../../kernels/products/weight.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { describeCase, FEW_ROWS, makeOperands, type ProductCase } from "../product_cases.ts";

const fixture = gpuFixture();

/** Both halves keep 22 bits of x: what is left beside f32 sums is 2^-23 each. */
const BOTH_HALVES = 3e-12;

const CASES: readonly ProductCase[] = [
  ...FEW_ROWS.filter(({ dtype, timed }) => dtype === "f16" && timed === undefined),
  { rows: 64, weightRows: 48, cols: 64, dtype: "f16", accumulate: true, nmse: 0 },
  { rows: 70, weightRows: 33, cols: 64, dtype: "f16", nmse: 0 },
];

for (const shape of CASES) {
  Deno.test(`matvec() on matrix units equals plain loops: ${describeCase(shape)}`, async () => {
    const { weight, x, y, expected } = makeOperands(fixture, shape);
    const { rows, accumulate = false } = shape;
    const plan = planDenseRows(fixture.gpu.info, weight);
    assert.equal(plan.kind, "matrix");
    matvec(fixture.commands, { weight, x, y, rows, accumulate, scratch: fixture.scratch }, plan);
    assertClose(await fixture.floats(y), expected, { nmse: BOTH_HALVES });
    freeWeight(fixture.gpu, weight);
  });
}

Deno.test("matvec() on matrix units gives a row the same bits alone and among 2 … 64 others, wherever it stands", async () => {
  const [cols, weightRows, rows] = [104, 37, 64];
  const random = new Random(5);
  const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype: "f16" });
  const { halves } = random.halves(weightRows * cols);
  writeRows(fixture.gpu, weight, { firstRow: 0, source: "F16", data: new Uint8Array(halves.buffer) });
  const values = random.normals(rows * cols);
  const before = random.normals(rows * weightRows);
  const of = (data: Float32Array, width: number, [first, count]: readonly [number, number]) =>
    fixture.upload("f32", data.slice(first * width, (first + count) * width), [count, width]);
  const run = async (range: readonly [number, number]) => {
    const y = of(before, weightRows, range);
    const operands = { weight, x: of(values, cols, range), y, rows: range[1], accumulate: true };
    const plan = planDenseRows(fixture.gpu.info, weight);
    matvec(fixture.commands, { ...operands, scratch: fixture.scratch }, plan);
    return new Uint32Array((await fixture.floats(y)).buffer);
  };
  const together = await run([0, rows]);
  for (const [first, count] of [[0, 1], [63, 1], [3, 2], [5, 9], [7, 16], [20, 31], [1, 50]] as const) {
    assert.deepEqual(
      await run([first, count]),
      together.slice(first * weightRows, (first + count) * weightRows),
      `rows ${first} + ${count}`,
    );
  }
  freeWeight(fixture.gpu, weight);
});

Deno.test("planDenseRows() leaves f32 weights and adapters without matrix units to the plain kernels", () => {
  const { info } = fixture.gpu;
  assert.equal(planDenseRows(info, { cols: 256, dtype: "f32" }).kind, info.software ? "lanes" : "team");
  assert.equal(
    planDenseRows({ ...info, matrix: [] }, { cols: 256, dtype: "f16" }).kind,
    info.software ? "lanes" : "team",
  );
});
