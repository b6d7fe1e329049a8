import assert from "node:assert/strict";
import { mergeStates } from "../../../kernels/attention/merge_states.ts";
import type { Tuning } from "../../../kernels/attention/tuning.ts";
import { floatRows, type ProductForm, type Rows, takeRows } from "../../../kernels/rows.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { EMPTY } from "../../reference/attention.ts";
import { merge } from "../../reference/merge_states.ts";
import { assertClose } from "../../support/assert_close.ts";
import { digitWordsOf, emptyDigits } from "../../support/digit_words.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { ROW_FORM_NMSE, rowValues } from "../../support/row_values.ts";

const fixture = gpuFixture();

const CASES = [
  { count: 0, rows: 2, heads: 3, headDim: 64 },
  { count: 1, rows: 1, heads: 4, headDim: 16 },
  { count: 2, rows: 3, heads: 7, headDim: 128 },
  { count: 5, rows: 2, heads: 1, headDim: 24 },
  { count: 129, rows: 2, heads: 2, headDim: 64 },
];

interface Parts {
  readonly o: Float32Array<ArrayBuffer>;
  readonly lse: Float32Array<ArrayBuffer>;
}

const TUNINGS: readonly Tuning[] = ["hardware", "software"];

for (const [shape, tuning] of CASES.flatMap((shape) => TUNINGS.map((tuning) => [shape, tuning] as const))) {
  const { count, rows, heads, headDim } = shape;
  Deno.test(`mergeStates() equals plain loops: ${count} states of ${rows}×${heads}×${headDim}, ${tuning}`, async () => {
    const random = new Random(1);
    const o = random.normals(count * rows * heads * headDim);
    // Far apart, so that some weights vanish; every fifth state is empty.
    const lse = random.normals(count * rows * heads, 30).map((value, i) => i % 5 === 4 ? EMPTY : value);
    lse.forEach((value, i) => value === EMPTY && o.fill(0, i * headDim, (i + 1) * headDim));
    const merged = await run(shape, { o, lse }, tuning);
    for (let at = 0; at < rows * heads; at++) {
      const states = Array.from({ length: count }, (_, part) => {
        const state = part * rows * heads + at;
        return { o: Float64Array.from(o.subarray(state * headDim, (state + 1) * headDim)), lse: lse[state] ?? NaN };
      });
      const expected = merge(states, headDim);
      // f32 exponentials of differences up to 100.
      assertClose(merged.o.subarray(at * headDim, (at + 1) * headDim), expected.o, { nmse: 1e-9 });
      assertClose([merged.lse[at] ?? NaN], [expected.lse], { maxAbs: 1e-4 });
    }
  });
}

Deno.test("mergeStates() with empty states changes no bit, and of empty states only makes an empty one", async () => {
  const shape = { count: 3, rows: 1, heads: 2, headDim: 32 };
  const own = new Random(2).normals(32);
  const o = new Float32Array(3 * 64);
  o.set(own, 64);
  const lse = new Float32Array(6).fill(EMPTY);
  lse[2] = -3.25;
  for (const tuning of TUNINGS) {
    const merged = await run(shape, { o, lse }, tuning);
    assert.deepEqual([...merged.o], [...own, ...new Float32Array(32)]);
    assert.deepEqual([...merged.lse], [-3.25, EMPTY]);
  }
});

Deno.test("mergeStates() stores halves and digits of what it stores as f32, of no state and of several", async () => {
  for (const count of [0, 3]) {
    const shape = { count, rows: 2, heads: 3, headDim: 64 };
    const random = new Random(3);
    const o = random.normals(count * 2 * 192);
    const given = { shape, parts: { o, lse: random.normals(count * 6) }, tuning: "hardware" } as const;
    const size = { rows: 2, cols: 192 };
    const plain = fixture.zeros("f32", [2, 192]);
    dispatch(given, floatRows(plain));
    const halves = takeRows(fixture.scratch, "merged halves", { form: "f16", ...size });
    dispatch(given, halves);
    assertClose(await rowValues(fixture, halves, size), await fixture.floats(plain), { nmse: ROW_FORM_NMSE.f16 });
    const digits = emptyDigits(fixture, size);
    dispatch(given, digits);
    assert.deepEqual(await fixture.words(digits.tensor), await digitWordsOf(fixture, floatRows(plain), size));
  }
});

Deno.test("mergeStates() refuses digits of heads that are no multiple of a group", () => {
  const shape = { count: 1, rows: 1, heads: 2, headDim: 48 };
  const parts = { o: new Float32Array(96), lse: new Float32Array(2) };
  const out = emptyDigits(fixture, { rows: 1, cols: 96 });
  assert.throws(
    () => dispatch({ shape, parts, tuning: "hardware" }, out),
    /heads of a multiple of 32 dimensions, given 48/,
  );
});

interface Merged {
  readonly shape: (typeof CASES)[number];
  readonly parts: Parts;
  readonly tuning: Tuning;
}

/** @returns the log-sum-exps */
function dispatch({ shape, parts, tuning }: Merged, o: Rows<ProductForm>): Tensor {
  const { count, rows, heads, headDim } = shape;
  const lse = fixture.zeros("f32", [rows, heads]);
  mergeStates(fixture.commands, {
    shape: { heads, headDim },
    rows,
    count,
    parts: {
      o: fixture.upload("f32", parts.o, [count, rows, heads, headDim]),
      lse: fixture.upload("f32", parts.lse, [count, rows, heads]),
    },
    out: { o: o.tensor, lse },
    outForm: o.form,
    tuning,
  });
  return lse;
}

async function run(shape: (typeof CASES)[number], parts: Parts, tuning: Tuning): Promise<Parts> {
  const o = fixture.zeros("f32", [shape.rows, shape.heads, shape.headDim]);
  const lse = dispatch({ shape, parts, tuning }, floatRows(o));
  return { o: await fixture.floats(o), lse: await fixture.floats(lse) };
}
