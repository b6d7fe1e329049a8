/** A norm between two products on matrix units, without a kernel of its own. */

import assert from "node:assert/strict";
import { GpuError } from "../../../kernels/errors.ts";
import { gatedMatvec, matvec, planDenseRows, planMatvec, squaresOf } from "../../../kernels/products/matvec.ts";
import { floatRows, type Rows, takeRows } from "../../../kernels/rows.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { product } from "../../reference/product.ts";
import { rmsNorm } from "../../reference/rms_norm.ts";
import { swiglu } from "../../reference/swiglu.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { rowValues } from "../../support/row_values.ts";

const fixture = gpuFixture();

const EPSILON = 1e-5;
/** Both halves of the rows keep 21 bits at least, and the rest is f32. */
const NMSE = 1e-11;
const ROWS = 21;
const [INNER, HIDDEN, RESULTS] = [64, 96, 48];

/** Two weights, what is added to, and the norm between: hidden rows as small as after an embedding, or large in a few columns. */
interface Block {
  readonly first: Weight;
  readonly second: Weight;
  readonly factors: Float32Array<ArrayBuffer>;
  readonly a: Float32Array<ArrayBuffer>;
  readonly x: Float32Array<ArrayBuffer>;
  readonly values: { readonly first: Float32Array; readonly second: Float32Array };
}

function makeBlock(deviation: number, peak: number): Block {
  const random = new Random(4);
  const make = (rows: number, cols: number) => {
    const { halves, values } = random.halves(rows * cols);
    const weight = createWeight(fixture.gpu, "block", { rows, cols, dtype: "f16" });
    writeRows(fixture, weight, { firstRow: 0, source: "F16", data: new Uint8Array(halves.buffer) });
    return { weight, values };
  };
  const [first, second] = [make(HIDDEN, INNER), make(RESULTS, HIDDEN)];
  const x = random.normals(ROWS * HIDDEN, deviation);
  for (let row = 0; row < ROWS; row++) x[row * HIDDEN + 7] = peak;
  return {
    first: first.weight,
    second: second.weight,
    factors: random.normals(HIDDEN),
    a: random.normals(ROWS * INNER, deviation),
    x,
    values: { first: first.values, second: second.values },
  };
}

/** Adds the first product to x, and gives what the second one reads. */
function addAndDefer(block: Block, [from, rows]: readonly [number, number]): { x: Tensor; normed: Rows } {
  const part = (data: Float32Array, width: number) =>
    fixture.upload("f32", data.slice(from * width, (from + rows) * width), [rows, width]);
  const plan = planDenseRows(fixture.gpu.info, block.first);
  const parts = squaresOf(plan, block.first) ?? 0;
  assert.ok(parts > 0);
  const x = part(block.x, HIDDEN);
  const squares = fixture.zeros("f32", [rows, parts]);
  const out = takeRows(fixture.scratch, "normed", { form: "both", rows, cols: HIDDEN });
  matvec(fixture.commands, {
    weight: block.first,
    x: floatRows(part(block.a, INNER)),
    y: x,
    rows,
    accumulate: true,
    defer: { weight: fixture.upload("f32", block.factors, [HIDDEN]), out, squares },
    scratch: fixture.scratch,
  }, plan);
  return { x, normed: { ...out, pending: { squares, epsilon: EPSILON } } };
}

function expectedOf({ a, x, values, factors }: Block) {
  const sums = product(a, values.first, { rows: ROWS, weightRows: HIDDEN, cols: INNER });
  const hidden = sums.map((sum, i) => sum + (x[i] ?? NaN));
  const normed = rmsNorm(hidden, factors, EPSILON);
  return { hidden, results: product(normed, values.second, { rows: ROWS, weightRows: RESULTS, cols: HIDDEN }) };
}

for (
  const [name, deviation, peak] of [["small", 1e-3, 1e-3], ["of 1", 1, 1], ["with a peak of 30,000", 1, 3e4]] as const
) {
  Deno.test(`A pending norm equals plain loops: rows ${name}`, async () => {
    const block = makeBlock(deviation, peak);
    const { x, normed } = addAndDefer(block, [0, ROWS]);
    const y = fixture.zeros("f32", [ROWS, RESULTS]);
    const plan = planDenseRows(fixture.gpu.info, block.second);
    matvec(fixture.commands, { weight: block.second, x: normed, y, rows: ROWS, scratch: fixture.scratch }, plan);
    const out = takeRows(fixture.scratch, "gated", { form: "both", rows: ROWS, cols: RESULTS / 2 });
    gatedMatvec(fixture.commands, {
      ...{ weight: block.second, x: normed, out, rows: ROWS, scratch: fixture.scratch },
      activation: "silu",
    }, plan);
    const expected = expectedOf(block);
    assertClose(await fixture.floats(x), expected.hidden, { nmse: NMSE });
    assertClose(await fixture.floats(y), expected.results, { nmse: NMSE });
    assertClose(
      await rowValues(fixture, out, { rows: ROWS, cols: RESULTS / 2 }),
      swiglu(expected.results, RESULTS / 2, "silu"),
      { nmse: 1e-10 },
    );
    freeWeight(fixture.gpu, block.first);
    freeWeight(fixture.gpu, block.second);
  });
}

Deno.test("A pending norm gives a row the same bits alone and among others, wherever it stands", async () => {
  const block = makeBlock(1, 1);
  const plan = planDenseRows(fixture.gpu.info, block.second);
  const run = async (range: readonly [number, number]) => {
    const { x, normed } = addAndDefer(block, range);
    const y = fixture.zeros("f32", [range[1], RESULTS]);
    matvec(fixture.commands, { weight: block.second, x: normed, y, rows: range[1], scratch: fixture.scratch }, plan);
    return {
      x: new Uint32Array((await fixture.floats(x)).buffer),
      y: new Uint32Array((await fixture.floats(y)).buffer),
    };
  };
  const together = await run([0, ROWS]);
  for (const [first, rows] of [[0, 1], [20, 1], [3, 2], [1, 16]] as const) {
    const { x, y } = await run([first, rows]);
    assert.deepEqual(x, together.x.slice(first * HIDDEN, (first + rows) * HIDDEN));
    assert.deepEqual(y, together.y.slice(first * RESULTS, (first + rows) * RESULTS));
  }
  freeWeight(fixture.gpu, block.first);
  freeWeight(fixture.gpu, block.second);
});

Deno.test("squaresOf() leaves norms to their own kernel without matrix units, for weights in parts and rows of odd widths", () => {
  const { info } = fixture.gpu;
  const squares = (rows: number, partBytes = 2 ** 20) => {
    const weight = createWeight(fixture.gpu, "widths", { rows, cols: 64, dtype: "f16", partBytes });
    freeWeight(fixture.gpu, weight);
    return [planDenseRows(info, weight), planMatvec(info, 64)].map((plan) => squaresOf(plan, weight));
  };
  const unit = info.matrix[0]?.m ?? NaN;
  assert.deepEqual(squares(256), [256 / unit, undefined]);
  assert.deepEqual(squares(256, 8192), [undefined, undefined]);
  assert.deepEqual(squares(72), [undefined, undefined]);
});

Deno.test("matvec() refuses to defer a norm of results that it does not add", () => {
  const block = makeBlock(1, 1);
  const [tensor, plan] = [fixture.zeros("f32", [1, HIDDEN]), planDenseRows(fixture.gpu.info, block.first)];
  const out = takeRows(fixture.scratch, "normed", { form: "both", rows: 1, cols: HIDDEN });
  const defer = { weight: tensor, out, squares: tensor };
  const x = floatRows(fixture.zeros("f32", [1, INNER]));
  assert.throws(
    () =>
      matvec(fixture.commands, { weight: block.first, x, y: tensor, rows: 1, defer, scratch: fixture.scratch }, plan),
    GpuError,
  );
  freeWeight(fixture.gpu, block.first);
  freeWeight(fixture.gpu, block.second);
});
