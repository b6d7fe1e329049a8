import assert from "node:assert/strict";
import {
  gatedMatmul,
  matmul,
  type MatmulAdapter,
  type MatmulPlan,
  planMatmul,
  type PlanOptions,
} from "../../../kernels/products/matmul.ts";
import { floatRows } from "../../../kernels/rows.ts";
import type { WeightDType } from "../../../kernels/weights/format.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { checkGated } from "../gated_cases.ts";
import { describeCase, makeOperands, MANY_ROWS, testedCases } from "../product_cases.ts";

const fixture = gpuFixture();

const PLANS: readonly MatmulPlan[] = [
  { kind: "lanes", inputs: 8, outputs: 8, broadcast: false },
  { kind: "lanes", inputs: 16, outputs: 8, broadcast: true },
  { kind: "lanes", inputs: 8, outputs: 2, broadcast: true },
  { kind: "tiles", side: 64 },
  { kind: "tiles", side: 128 },
];

function describePlan(plan: MatmulPlan): string {
  if (plan.kind === "lanes") {
    return `lanes of ${plan.inputs} × ${plan.outputs}${plan.broadcast ? " that broadcast" : ""}`;
  }
  return plan.kind === "tiles" ? `tiles of ${plan.side}` : plan.kind;
}

for (const plan of PLANS) {
  for (const shape of testedCases(MANY_ROWS)) {
    Deno.test(`matmul() equals plain loops: ${describePlan(plan)}, ${describeCase(shape)}`, async () => {
      const { weight, x, y, expected } = makeOperands(fixture, shape);
      matmul(fixture.commands, {
        weight,
        x,
        y,
        rows: shape.rows,
        accumulate: shape.accumulate ?? false,
        scratch: fixture.scratch,
      }, plan);
      assertClose(await fixture.floats(y), expected, { nmse: shape.nmse });
      freeWeight(fixture.gpu, weight);
    });
  }
}

Deno.test("matmul() gives the same bits by lanes however many rows a lane takes", async () => {
  const { weight, x, y } = makeOperands(fixture, { rows: 21, weightRows: 144, cols: 72, dtype: "f16", nmse: 0 });
  const results: Float32Array[] = [];
  for (const plan of PLANS.filter(({ kind }) => kind === "lanes")) {
    matmul(fixture.commands, { weight, x, y, rows: 21, scratch: fixture.scratch }, plan);
    results.push(await fixture.floats(y));
  }
  assert.equal(results.length, 3);
  for (const result of results) assert.deepEqual(result, results[0]);
  freeWeight(fixture.gpu, weight);
});

for (const plan of PLANS) {
  Deno.test(`gatedMatmul() equals plain loops: ${describePlan(plan)}`, async () => {
    const sums = { rows: 21, weightRows: 144, cols: 72, dtype: "f16", nmse: 1e-12 } as const;
    const shape = { ...sums, form: "f32", activation: "silu" } as const;
    await checkGated(fixture, shape, (product) => gatedMatmul(fixture.commands, product, plan));
  });
}

Deno.test("gatedMatmul() refuses a weight that is not gate and up of whole vectors", () => {
  const weight = createWeight(fixture.gpu, "odd", { rows: 24, cols: 64, dtype: "f16" });
  const rows = floatRows(fixture.zeros("f32", [1, 64]));
  const product = { weight, x: rows, out: rows, rows: 1, activation: "silu", scratch: fixture.scratch } as const;
  assert.throws(() => gatedMatmul(fixture.commands, product), /24 rows of gate and up are not twice a multiple of 8/);
  freeWeight(fixture.gpu, weight);
});

Deno.test("matmul() gives a row the same bits alone, among others, and in tiles of either size", async () => {
  const [cols, weightRows, rows] = [264, 70, 150];
  const random = new Random(6);
  const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype: "f16" });
  const { halves } = random.halves(weightRows * cols);
  writeRows(fixture, weight, { firstRow: 0, source: "F16", data: new Uint8Array(halves.buffer) });
  const values = random.normals(rows * cols);
  const run = async (plan: MatmulPlan, first: number, count: number) => {
    const x = floatRows(fixture.upload("f32", values.slice(first * cols, (first + count) * cols), [count, cols]));
    const y = fixture.zeros("f32", [count, weightRows]);
    matmul(fixture.commands, { weight, x, y, rows: count, scratch: fixture.scratch }, plan);
    return new Uint32Array((await fixture.floats(y)).buffer);
  };
  for (const kind of ["lanes", "tiles"] as const) {
    const plans = PLANS.filter((plan) => plan.kind === kind);
    const together = await run(plans[0] ?? assert.fail(`no plan of ${kind}`), 0, rows);
    for (const plan of plans) {
      for (const [first, count] of [[0, 1], [3, 9], [100, 50], [0, 150]] as const) {
        const some = await run(plan, first, count);
        const expected = together.slice(first * weightRows, (first + count) * weightRows);
        assert.deepEqual(some, expected, `${describePlan(plan)}, rows ${first} + ${count}`);
      }
    }
  }
  freeWeight(fixture.gpu, weight);
});

const PLAIN = {
  ...{ software: false, loadsByLane: false, matrix: [], subgroups: true, subgroupSize: 32 },
  ...{ maxBindingBytes: 2 ** 31, maxBufferBytes: 2 ** 32 },
};
const weightOf = (rows: number) => ({ rows, cols: 4096, parts: [] });

Deno.test("planMatmul() takes large tiles only when there are enough of them", () => {
  const lanesOf = (changes: Partial<MatmulAdapter>) => {
    const plan = planMatmul({ ...PLAIN, software: true, ...changes }, 512, weightOf(4096));
    return plan.kind === "lanes" ? [plan.inputs, plan.outputs, plan.broadcast] : plan.kind;
  };
  assert.deepEqual(lanesOf({}), [8, 2, true]);
  assert.deepEqual(lanesOf({ loadsByLane: true }), [16, 8, true]);
  assert.deepEqual(lanesOf({ loadsByLane: true, subgroups: false }), [8, 8, false]);
  assert.deepEqual(planMatmul(PLAIN, 1024, weightOf(14336)), { kind: "tiles", side: 128 });
  assert.deepEqual(planMatmul(PLAIN, 128, weightOf(4096)), { kind: "tiles", side: 64 });
});

Deno.test("planMatmul() takes deep tiles on matrix units where a processor computes one at a time", () => {
  const shape = { m: 16, n: 16, k: 16, input: "f16", result: "f32" } as const;
  const depthOf = (rows: number, changes: Partial<Pick<Weight, "rows" | "cols">>, options: PlanOptions = {}) => {
    const part = { tensor: fixture.zeros("f16", [1]), dtype: "f16", firstRow: 0, rows: 1 } as const;
    const weight = { rows: 6144, cols: 4096, parts: [part], ...changes };
    const plan = planMatmul({ ...PLAIN, matrix: [shape] }, rows, weight, options);
    return plan.kind === "matrix" ? [plan.tile.rows, plan.tile.depth] : plan.kind;
  };
  assert.deepEqual(depthOf(2048, {}), [128, 32]);
  assert.deepEqual(depthOf(2048, {}, { gated: true }), [128, 64]);
  assert.deepEqual(depthOf(512, {}), [128, 64]);
  assert.deepEqual(depthOf(512, { cols: 4128 }), [128, 32]);
  assert.deepEqual(depthOf(64, {}), [64, 32]);
  assert.deepEqual(depthOf(64, {}, { size: "large" }), [128, 64]);
});

Deno.test("planMatmul() has quantised weights decoded in memory for many rows, where their halves fit", () => {
  const shape = { m: 16, n: 16, k: 16, input: "f16", result: "f32" } as const;
  const isDecoded = (rows: number, dtypes: readonly WeightDType[], changes: Partial<MatmulAdapter> = {}) => {
    const tensor = fixture.zeros("f16", [1]);
    const parts = dtypes.map((dtype, i) => ({ tensor, dtype, firstRow: 4096 * i, rows: 4096 }));
    const weight = { rows: 4096 * dtypes.length, cols: 4096, parts };
    const plan = planMatmul({ ...PLAIN, matrix: [shape], ...changes }, rows, weight);
    return plan.kind === "matrix" ? [plan.decoded, plan.tile.depth] : plan.kind;
  };
  assert.deepEqual(isDecoded(512, ["q4"]), [true, 64]);
  assert.deepEqual(isDecoded(511, ["q4"]), [false, 32]);
  assert.deepEqual(isDecoded(512, ["f16"]), [false, 64]);
  assert.deepEqual(isDecoded(512, ["f16", "q6k"]), [true, 64]);
  assert.deepEqual(isDecoded(512, ["q4"], { maxBindingBytes: 4096 * 4096 * 2 - 16 }), [false, 32]);
});
