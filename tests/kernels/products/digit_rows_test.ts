import assert from "node:assert/strict";
import { at } from "../../../kernels/at.ts";
import { asDigits } from "../../../kernels/products/digit_rows.ts";
import { rmsNorm } from "../../../kernels/rms_norm.ts";
import { floatRows, type Rows, takeRows } from "../../../kernels/rows.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** Where the digits of a group's values lie among the bytes of an eight. */
const ORDER = [0, 4, 1, 5, 2, 6, 3, 7];

/** What rows of digits stand for, and the sums beside them. */
async function read({ tensor }: Rows<"digits">, { rows, cols }: { readonly rows: number; readonly cols: number }) {
  const words = await fixture.words(tensor);
  const [bytes, floats] = [new Int8Array(words.buffer), new Float32Array(words.buffer)];
  const groups = cols / 32;
  const values = new Float64Array(rows * cols);
  const sums: number[][] = [];
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const vector = (n: number) => 4 * ((row * 5 + n) * groups + group);
      const unit = at(floats, vector(4));
      for (let i = 0; i < 32; i++) {
        const byte = (i >> 4) * 4 * 4 * groups + i % 16;
        const [high, low] = [at(bytes, 4 * vector(0) + byte), at(bytes, 4 * vector(2) + byte)];
        values[row * cols + 32 * group + (i & 24) + at(ORDER, i % 8)] = unit * (256 * high + low);
      }
      sums.push([1, 2].map((n) => unit * (at(words, vector(4) + n) | 0)));
    }
  }
  return { values, sums };
}

function total(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0);
}

Deno.test("asDigits() keeps each value within half a unit, 16,320 or more of which make the largest of its group", async () => {
  const shape = { rows: 3, cols: 96 };
  const given = new Random(1).normals(shape.rows * shape.cols);
  // Largest values at and around powers of two, a group of zeros, one beside tiny values, and one at the end of f32.
  for (const [group, value] of [[0, 2], [1, -1.9999], [2, 1.99], [3, 1.9922], [4, 1e-30], [5, 3e38]] as const) {
    for (let i = 0; i < 32; i++) given[32 * group + i] = (i === 5 ? 1 : at(given, 32 * group + i) / 8) * value;
  }
  given.fill(0, 32 * 6, 32 * 7);
  const x = floatRows(fixture.upload("f32", given, [shape.rows, shape.cols]));
  const { values, sums } = await read(asDigits(fixture.commands, fixture.scratch, { x, ...shape }), shape);
  for (let group = 0; group < given.length / 32; group++) {
    const [own, kept] = [given, values].map((all) => Float64Array.from(all.subarray(32 * group, 32 * group + 32)));
    assert.ok(own && kept);
    const largest = own.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    own.forEach((value, i) => assert.ok(Math.abs(at(kept, i) - value) <= largest / 16320 / 2, `${group}: ${value}`));
    assert.deepEqual(sums[group], [total(kept), total(kept.subarray(0, 16))]);
  }
});

Deno.test("rmsNorm() stores the digits of what it stores as f32", async () => {
  // Whole rounds of all threads, and rows that leave most of them without values.
  for (const cols of [512, 96]) {
    const shape = { rows: 2, cols };
    const random = new Random(2);
    const x = fixture.upload("f32", random.normals(2 * cols), [2, cols]);
    const weight = fixture.upload("f32", random.normals(cols), [cols]);
    const plain = floatRows(fixture.zeros("f32", [2, cols]));
    const out = takeRows(fixture.scratch, "normed", { form: "digits", ...shape });
    for (const to of [plain, out]) rmsNorm(fixture.commands, { x, weight, out: to, ...shape, epsilon: 1e-5 });
    const expected = await fixture.words(asDigits(fixture.commands, fixture.scratch, { x: plain, ...shape }).tensor);
    assert.deepEqual(await fixture.words(out.tensor), expected);
  }
});

Deno.test("asDigits() takes digits as they are, and refuses halves", () => {
  const shape = { rows: 1, cols: 32 };
  const digits = takeRows(fixture.scratch, "taken", { form: "digits", ...shape });
  assert.equal(asDigits(fixture.commands, fixture.scratch, { x: digits, ...shape }).tensor, digits.tensor);
  const x = takeRows(fixture.scratch, "halves", { form: "f16", ...shape });
  assert.throws(
    () => asDigits(fixture.commands, fixture.scratch, { x, ...shape }),
    /is rows of form f16, expected f32/,
  );
});
