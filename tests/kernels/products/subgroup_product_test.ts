import assert from "node:assert/strict";
import { gatedMatvec, headMatvec, matvec } from "../../../kernels/products/matvec.ts";
import type { SubgroupPlan } from "../../../kernels/products/matvec.ts";
import type { TileSize } from "../../../kernels/products/tile_choice.ts";
import { floatRows } from "../../../kernels/rows.ts";
import type { Activation } from "../../../kernels/swiglu.ts";
import { isQuantized, QUANTIZED_DTYPES, type QuantizedDType } from "../../../kernels/weights/format.ts";
import { createWeight, freeWeight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { assertClose } from "../../support/assert_close.ts";
import { digitWordsOf, emptyDigits } from "../../support/digit_words.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { checkGated, checkGatedBits } from "../gated_cases.ts";
import { checkHeadBits, HEAD_CASES, type HeadCase } from "../head_cases.ts";
import { describeCase, FEW_ROWS, makeOperands, weightData } from "../product_cases.ts";

const fixture = gpuFixture();

/** Rows are rounded to integers of 16 bits a group: 1e-9 of their square, and more where the other factors spread widely. */
const DIGIT_ROWS = 4e-9;

/** Subgroups are there on every adapter that this is tested with. */
function plan(): SubgroupPlan {
  return { kind: "subgroups", subgroupSize: fixture.gpu.info.subgroupSize ?? 8, shares: 2 };
}

for (const shape of FEW_ROWS.filter(({ dtype }) => isQuantized(dtype))) {
  Deno.test(`matvec() by subgroups equals plain loops: ${describeCase(shape)}`, async () => {
    const { weight, x, y, expected } = makeOperands(fixture, shape);
    const { rows, accumulate = false } = shape;
    matvec(fixture.commands, { weight, x, y, rows, accumulate, scratch: fixture.scratch }, plan());
    assertClose(await fixture.floats(y), expected, { nmse: DIGIT_ROWS });
    freeWeight(fixture.gpu, weight);
  });
}

for (const dtype of gateCases<readonly QuantizedDType[]>(["q4k"], QUANTIZED_DTYPES)) {
  Deno.test(`matvec() by subgroups gives a row the same bits alone and among others: ${dtype}`, async () => {
    const [weightRows, rows, cols] = [18, 11, 1280];
    const random = new Random(5);
    const weight = createWeight(fixture.gpu, "bits", { rows: weightRows, cols, dtype });
    writeRows(fixture, weight, { firstRow: 0, ...weightData(random, dtype, weightRows * cols) });
    const values = random.normals(rows * cols);
    const run = async (first: number, count: number, size: TileSize = "small") => {
      const x = floatRows(fixture.upload("f32", values.slice(first * cols, (first + count) * cols), [count, cols]));
      const y = fixture.zeros("f32", [count, weightRows]);
      matvec(fixture.commands, { weight, x, y, rows: count, scratch: fixture.scratch }, { ...plan(), size });
      return new Uint32Array((await fixture.floats(y)).buffer);
    };
    const together = await run(0, rows);
    for (const [first, count] of [[0, 1], [1, 2], [3, 4], [2, 8], [10, 1]] as const) {
      const expected = together.slice(first * weightRows, (first + count) * weightRows);
      assert.deepEqual(await run(first, count), expected, `rows ${first} + ${count}`);
    }
    assert.deepEqual(await run(0, rows, "large"), together, "by large tiles");
    freeWeight(fixture.gpu, weight);
  });
}

Deno.test("gatedMatvec() by subgroups equals plain loops, and has the bits of the product", async () => {
  const run = (product: Parameters<typeof gatedMatvec>[1]) => gatedMatvec(fixture.commands, product, plan());
  const shape = { rows: 3, weightRows: 48, cols: 96, dtype: "q4", form: "f32" } as const;
  await checkGated(fixture, { ...shape, activation: "silu", nmse: DIGIT_ROWS }, run);
  await checkGatedBits(fixture, { ...shape, rows: 5, deviation: 0.1, ranges: [[0, 5], [4, 1]] }, () => ({
    gated: run,
    product: (product) => matvec(fixture.commands, product, plan()),
  }));
});

Deno.test("gatedMatvec() and headMatvec() by large tiles of subgroups have the bits of the product by small ones", async () => {
  const large = { ...plan(), size: "large" } as const;
  const shape = {
    rows: 9,
    weightRows: 48,
    cols: 96,
    dtype: "q4",
    form: "f32",
    deviation: 0.1,
    ranges: [[0, 9]],
  } as const;
  await checkGatedBits(fixture, shape, () => ({
    gated: (product) => gatedMatvec(fixture.commands, product, large),
    product: (product) => matvec(fixture.commands, product, plan()),
  }));
  for (const heads of gateCases<readonly HeadCase[]>([], HEAD_CASES)) {
    await checkHeadBits(fixture, { ...heads, cols: 96, dtype: "q4" }, () => ({
      placing: (product) => headMatvec(fixture.commands, product, large),
      product: (product) => matvec(fixture.commands, product, plan()),
    }));
  }
});

Deno.test("headMatvec() by subgroups has the bits of the product and ropeAppend()", async () => {
  for (const shape of gateCases(HEAD_CASES.slice(0, 1), HEAD_CASES)) {
    await checkHeadBits(fixture, { ...shape, cols: 288, dtype: "q8" }, () => ({
      placing: (product) => headMatvec(fixture.commands, product, plan()),
      product: (product) => matvec(fixture.commands, product, plan()),
    }));
  }
});

/** Rows that the kernel makes digits of, and more than that; groups of 32 results in one workgroup each; weights of several parts. */
const DIGITS: readonly DigitCase[] = [
  { rows: 1, width: 32, cols: 2080, dtype: "q8", activation: "silu" },
  { rows: 2, width: 96, cols: 1056, dtype: "q4", activation: "silu" },
  { rows: 3, width: 96, cols: 96, dtype: "q5", activation: "gelu_tanh" },
  { rows: 1, width: 64, cols: 512, dtype: "q4k", activation: "silu" },
  { rows: 2, width: 64, cols: 256, dtype: "q6k", activation: "gelu_tanh" },
  { rows: 2, width: 64, cols: 96, dtype: "q4", activation: "silu", partBytes: 64 * 3 * 18 },
];

interface DigitCase {
  readonly rows: number;
  readonly width: number;
  readonly cols: number;
  readonly dtype: QuantizedDType;
  readonly activation: Activation;
  readonly partBytes?: number;
}

for (const { width, partBytes, ...shape } of gateCases(DIGITS.slice(1, 3), DIGITS)) {
  const { rows, cols, dtype, activation } = shape;
  Deno.test(`gatedMatvec() by subgroups stores the digits of what it stores as f32: ${JSON.stringify({ width, ...shape })}`, async () => {
    const { weight, x } = makeOperands(fixture, {
      ...shape,
      weightRows: 2 * width,
      nmse: 0,
      ...(partBytes && { partBytes }),
    });
    const product = { weight, x, rows, activation, scratch: fixture.scratch };
    const plain = floatRows(fixture.zeros("f32", [rows, width]));
    const out = emptyDigits(fixture, { rows, cols: width });
    for (const to of [plain, out]) gatedMatvec(fixture.commands, { ...product, out: to }, plan());
    assert.deepEqual(
      await fixture.words(out.tensor),
      await digitWordsOf(fixture, plain, { rows, cols: width }),
      `${cols} ${dtype}`,
    );
    freeWeight(fixture.gpu, weight);
  });
}
