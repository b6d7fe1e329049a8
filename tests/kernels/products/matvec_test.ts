import assert from "node:assert/strict";
import { GpuError } from "../../../kernels/errors.ts";
import { gatedMatvec, headMatvec, matvec, type MatvecPlan, planMatvec } from "../../../kernels/products/matvec.ts";
import { floatRows } from "../../../kernels/rows.ts";
import type { WeightDType } from "../../../kernels/weights/format.ts";
import { createWeight, freeWeight, type WeightPart } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { checkGated, checkGatedBits, describeGated, type GatedCase } from "../gated_cases.ts";
import { checkHeadBits, describeHeads, HEAD_CASES } from "../head_cases.ts";
import { describeCase, FEW_ROWS, makeOperands, testedCases, weightData } from "../product_cases.ts";

const fixture = gpuFixture();

const PLANS: readonly MatvecPlan[] = [
  { kind: "lanes", broadcast: false },
  // Subgroups of eight are there on every software adapter that this is tested with.
  { kind: "lanes", broadcast: true },
  { kind: "team", threads: 32, outputs: 4 },
  { kind: "team", threads: 64, outputs: 8 },
];

/** One for the kernels that gate, and one that they leave to two. */
const GATED: readonly GatedCase[] = [
  { rows: 11, weightRows: 272, cols: 264, dtype: "f16", form: "f32", activation: "silu", nmse: 1e-12 },
  { rows: 2, weightRows: 80, cols: 64, dtype: "f16", form: "f16", activation: "gelu_tanh", nmse: 1e-12 },
];

function describePlan(plan: MatvecPlan): string {
  if (plan.kind === "lanes") return `lanes${plan.broadcast ? " that broadcast" : ""}`;
  return plan.kind === "team" ? `teams of ${plan.threads}` : plan.kind;
}

for (const plan of PLANS) {
  for (const shape of testedCases(FEW_ROWS)) {
    Deno.test(`matvec() equals plain loops: ${describePlan(plan)}, ${describeCase(shape)}`, async () => {
      const { weight, x, y, expected } = makeOperands(fixture, shape);
      matvec(fixture.commands, {
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

  for (const shape of GATED) {
    Deno.test(`gatedMatvec() equals plain loops: ${describePlan(plan)}, ${describeGated(shape)}`, async () => {
      await checkGated(fixture, shape, (product) => gatedMatvec(fixture.commands, product, plan));
    });
  }

  Deno.test(`gatedMatvec() has the bits of the product, for any number of rows: ${describePlan(plan)}`, async () => {
    const shape = {
      rows: 8,
      weightRows: 80,
      cols: 264,
      form: "f32",
      deviation: 0.1,
      ranges: [[0, 8], [7, 1]],
    } as const;
    await checkGatedBits(fixture, shape, () => ({
      gated: (product) => gatedMatvec(fixture.commands, product, plan),
      product: (product) => matvec(fixture.commands, product, plan),
    }));
  });

  for (const shape of HEAD_CASES) {
    Deno.test(`headMatvec() has the bits of the product and ropeAppend(): ${describePlan(plan)}, ${describeHeads(shape)}`, async () => {
      await checkHeadBits(fixture, shape, () => ({
        placing: (product) => headMatvec(fixture.commands, product, plan),
        product: (product) => matvec(fixture.commands, product, plan),
      }));
    });
  }

  for (const [dtype, cols] of [["f16", 1048], ["q4k", 1024]] as const) {
    Deno.test(`matvec() gives a row the same bits alone and among others: ${describePlan(plan)}, ${dtype}`, async () => {
      const [weightRows, rows] = [70, 33];
      const random = new Random(5);
      const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype });
      const { source, data } = weightData(random, dtype, weightRows * cols);
      writeRows(fixture, weight, { firstRow: 0, source, data });
      const values = random.normals(rows * cols);
      const run = async (first: number, count: number) => {
        const x = floatRows(fixture.upload("f32", values.slice(first * cols, (first + count) * cols), [count, cols]));
        const y = fixture.zeros("f32", [count, weightRows]);
        matvec(fixture.commands, { weight, x, y, rows: count, scratch: fixture.scratch }, plan);
        return new Uint32Array((await fixture.floats(y)).buffer);
      };
      const together = await run(0, rows);
      for (const [first, count] of [[0, 1], [1, 2], [3, 4], [2, 5], [4, 8], [5, 9], [7, 16], [32, 1]] as const) {
        const alone = await run(first, count);
        assert.deepEqual(
          alone,
          together.slice(first * weightRows, (first + count) * weightRows),
          `rows ${first} + ${count}`,
        );
      }
      freeWeight(fixture.gpu, weight);
    });
  }
}

Deno.test("matvec() refuses tensors that are too small", () => {
  const weight = createWeight(fixture.gpu, "small", { rows: 64, cols: 64, dtype: "f16" });
  const x = floatRows(fixture.zeros("f32", [2, 64]));
  const y = fixture.zeros("f32", [1, 64]);
  assert.throws(() => matvec(fixture.commands, { weight, x, y, rows: 2, scratch: fixture.scratch }), GpuError);
  freeWeight(fixture.gpu, weight);
});

Deno.test("planMatvec() does not know how many rows come along", () => {
  const software = { software: true, subgroups: true, subgroupSize: 8, maxInvocations: 1024 };
  const hardware = { ...software, software: false, subgroupSize: 32 };
  const weight = (cols: number, dtype: WeightDType) => ({ cols, parts: [{ dtype } as WeightPart] });
  const half = weight(4096, "f16");
  assert.deepEqual(planMatvec({ ...software, subgroupSize: 4 }, half), { kind: "lanes", broadcast: false });
  assert.deepEqual(planMatvec(software, half), { kind: "lanes", broadcast: true });
  assert.deepEqual(planMatvec(hardware, half), { kind: "team", threads: 64, outputs: 4 });
  assert.deepEqual(planMatvec(hardware, weight(14336, "f16")), { kind: "team", threads: 128, outputs: 4 });
  const quantized = weight(4096, "q4");
  assert.deepEqual(planMatvec(hardware, quantized), { kind: "subgroups", subgroupSize: 32, shares: 2 });
  assert.deepEqual(planMatvec(hardware, weight(14336, "q4")), { kind: "subgroups", subgroupSize: 32, shares: 2 });
  assert.equal(planMatvec({ ...hardware, subgroupSize: undefined }, quantized).kind, "team");
  assert.equal(planMatvec({ ...hardware, maxInvocations: 64 }, quantized).kind, "team");
});
