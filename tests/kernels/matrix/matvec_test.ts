import assert from "node:assert/strict";
import { gatedMatvec, headMatvec, matvec, planRows } from "../../../kernels/products/matvec.ts";
import { floatRows } from "../../../kernels/rows.ts";
import type { WeightDType } from "../../../kernels/weights/format.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { checkGated, checkGatedBits, describeGated, type GatedCase } from "../gated_cases.ts";
import { checkHeadBits, describeHeads, HEAD_CASES } from "../head_cases.ts";
import { describeCase, FEW_ROWS, makeOperands, type ProductCase, weightData } from "../product_cases.ts";

const fixture = gpuFixture();

/** Rows are rounded to halves, 2^-12 each at most; quantised weights as well. */
const HALF_ROWS = 1e-7;
const HALF_WEIGHTS = 2e-7;

const CASES: readonly ProductCase[] = [
  ...FEW_ROWS.filter(({ dtype, timed }) => dtype !== "f32" && timed === undefined),
  { rows: 64, weightRows: 48, cols: 64, dtype: "f16", accumulate: true, nmse: 0 },
  { rows: 70, weightRows: 33, cols: 64, dtype: "f16", nmse: 0 },
];

for (const shape of CASES) {
  Deno.test(`matvec() on matrix units equals plain loops: ${describeCase(shape)}`, async () => {
    const { weight, x, y, expected } = makeOperands(fixture, shape);
    const { rows, accumulate = false } = shape;
    const plan = planRows(fixture.gpu.info, weight);
    assert.equal(plan.kind, "matrix");
    matvec(fixture.commands, { weight, x, y, rows, accumulate, scratch: fixture.scratch }, plan);
    assertClose(await fixture.floats(y), expected, { nmse: shape.dtype === "f16" ? HALF_ROWS : HALF_WEIGHTS });
    freeWeight(fixture.gpu, weight);
  });
}

for (const [dtype, cols] of [["f16", 104], ["q8", 96]] as const) {
  Deno.test(`matvec() on matrix units gives a row of ${dtype} the same bits alone and among 2 … 64 others, wherever it stands`, async () => {
    const [weightRows, rows] = [37, 64];
    const random = new Random(5);
    const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype });
    const { source, data } = weightData(random, dtype, weightRows * cols);
    writeRows(fixture, weight, { firstRow: 0, source, data });
    const values = random.normals(rows * cols);
    const before = random.normals(rows * weightRows);
    const of = (data: Float32Array, width: number, [first, count]: readonly [number, number]) =>
      fixture.upload("f32", data.slice(first * width, (first + count) * width), [count, width]);
    const run = async (range: readonly [number, number]) => {
      const y = of(before, weightRows, range);
      const operands = { weight, x: floatRows(of(values, cols, range)), y, rows: range[1], accumulate: true };
      const plan = planRows(fixture.gpu.info, weight);
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
}

/** Whole weights, and parts that have no kernel of their own. */
const GATED: readonly GatedCase[] = [
  { rows: 1, weightRows: 48, cols: 64, dtype: "f16", form: "f16", activation: "silu", nmse: HALF_ROWS },
  { rows: 7, weightRows: 112, cols: 64, dtype: "f16", form: "f16", activation: "silu", nmse: HALF_ROWS },
  {
    ...{ rows: 3, weightRows: 144, cols: 64, dtype: "f16", partBytes: 64 * 2 * 64 },
    ...{ form: "f16", activation: "silu", nmse: HALF_ROWS },
  },
];

for (const shape of GATED) {
  Deno.test(`gatedMatvec() on matrix units equals plain loops: ${describeGated(shape)}`, async () => {
    await checkGated(fixture, shape, (product) => {
      gatedMatvec(fixture.commands, product, planRows(fixture.gpu.info, product.weight));
    });
  });
}

Deno.test("gatedMatvec() on matrix units gives a row the same bits alone and among others, those of the product", async () => {
  const ranges = [[0, 7], [0, 1], [6, 1], [3, 2], [1, 5]] as const;
  await checkGatedBits(fixture, { rows: 7, weightRows: 112, cols: 64, form: "f16", ranges }, (weight) => {
    const plan = planRows(fixture.gpu.info, weight);
    return {
      gated: (product) => gatedMatvec(fixture.commands, product, plan),
      product: (product) => matvec(fixture.commands, product, plan),
    };
  });
});

// The software driver compiles for seconds.
for (const shape of HEAD_CASES.slice(1)) {
  Deno.test(`headMatvec() on matrix units has the bits of the product and ropeAppend(): ${describeHeads(shape)}`, async () => {
    await checkHeadBits(fixture, shape, (weight) => {
      const plan = planRows(fixture.gpu.info, weight);
      return {
        placing: (product) => headMatvec(fixture.commands, product, plan),
        product: (product) => matvec(fixture.commands, product, plan),
      };
    });
  });
}

Deno.test("planRows() leaves f32 weights and adapters without matrix units to the plain kernels", () => {
  const { info } = fixture.gpu;
  const plain = info.software ? "lanes" : "team";
  const [single, half] = [unfilled("f32"), unfilled("f16")];
  assert.equal(planRows(info, single).kind, plain);
  assert.equal(planRows({ ...info, matrix: [] }, half).kind, plain);
  assert.equal(planRows(info, half).kind, "matrix");
});

Deno.test("planRows() has quantised weights multiplied as integers on GPUs with subgroups", () => {
  const info = { ...fixture.gpu.info, software: false, subgroups: true, subgroupSize: 32, maxInvocations: 1024 };
  assert.equal(planRows(info, unfilled("q4")).kind, "subgroups");
  assert.equal(planRows({ ...info, subgroups: false }, unfilled("q4")).kind, "matrix");
});

/** What plans read of a weight. */
function unfilled(dtype: WeightDType): Weight {
  const weight = createWeight(fixture.gpu, dtype, { rows: 8, cols: 256, dtype });
  freeWeight(fixture.gpu, weight);
  return weight;
}
