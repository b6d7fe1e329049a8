import assert from "node:assert/strict";
import { decodeAttention } from "../../../kernels/attention/decode_attention.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import { MATRIX_CUT } from "../../../kernels/attention/split/split_cut.ts";
import { rowTilesFor } from "../../../kernels/attention/tile/matrix_tile_plan.ts";
import { floatRows, takeRows } from "../../../kernels/rows.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { attend, scoresOf } from "../../reference/attention.ts";
import { assertClose } from "../../support/assert_close.ts";
import { digitWordsOf, emptyDigits } from "../../support/digit_words.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { ROW_FORM_NMSE, rowValues } from "../../support/row_values.ts";
import { halvesOf } from "../../support/half_queries_fixture.ts";
import { consecutiveRows } from "../attention/attention_cases.ts";
import { mixed, prepareBlocks, type PreparedBlocks } from "../attention/decode_blocks.ts";

const fixture = gpuFixture();

/** Queries and weights are rounded to f16, 2^-12 each. */
const HALF_OPERANDS = 1e-6;
/** Logits of a few units, from queries that err by 2^-12. */
const LOGIT_ERROR = 2e-3;

/** Of scores: more than any row sees. */
const STRIDE = 1112;
const UNWRITTEN = 7;

const SHAPE: HeadShape = { heads: 4, kvHeads: 2, headDim: 64 };

for (const window of [undefined, 300]) {
  Deno.test(`decodeAttention() on matrix units: equals plain loops, and a row's bits alone are those in a block: window ${window}`, async () => {
    assert.notEqual(rowTilesFor(fixture.gpu.info, SHAPE), undefined, "this adapter has no matrix units");
    const { rows, blocks } = mixed(window);
    const call = prepareBlocks(fixture, SHAPE, rows);
    const q = halves(call);
    const alone = await call.states({ q });
    const expected = reference(call, rows);
    assertClose(new Float32Array(alone.o.buffer), expected.o, { nmse: HALF_OPERANDS });
    assertClose(new Float32Array(alone.lse.buffer), expected.lse, { maxAbs: LOGIT_ERROR });
    const size = rows.length * SHAPE.heads * STRIDE;
    const scores = fixture.upload("f32", new Float32Array(size).fill(UNWRITTEN), [rows.length, SHAPE.heads, STRIDE]);
    assert.deepEqual(await call.states({ q, scores: { scores, stride: STRIDE } }), alone, "scores kept");
    assertClose(await fixture.floats(scores), expected.scores, { maxAbs: LOGIT_ERROR });
    for (const rowsTogether of [2, 4, 16]) {
      assert.deepEqual(await call.states({ q, blocks, rowsTogether }), alone, `${rowsTogether} rows`);
    }
    const cramped = prepareBlocks(fixture, SHAPE, rows, { scratchRows: 3 });
    assert.deepEqual(await cramped.states({ q, blocks }), alone, "three rows a pass");
  });
}

/** The kernel compiles soonest for them. */
const SHORT_HEADS: HeadShape = { heads: 2, kvHeads: 2, headDim: 16 };

Deno.test("decodeAttention() on matrix units writes outputs as halves, of one split or merged", async () => {
  const { rows } = mixed(undefined);
  const call = prepareBlocks(fixture, SHORT_HEADS, rows);
  const q = halves(call, SHORT_HEADS);
  const single = await call.states({ q });
  const shape = { rows: rows.length, cols: SHORT_HEADS.heads * SHORT_HEADS.headDim };
  const o = takeRows(fixture.scratch, "outputs, halves", { form: "f16", ...shape });
  const given = { ...call.args, q, out: { ...call.args.out, o: o.tensor } };
  decodeAttention(fixture.commands, { ...given, outForm: "f16" });
  const values = await rowValues(fixture, o, shape);
  assertClose(values, new Float32Array(single.o.buffer), { nmse: ROW_FORM_NMSE.f16 });
});

Deno.test("decodeAttention() on matrix units writes the digits of outputs, of no split, of one, or merged", async () => {
  const { rows } = mixed(undefined);
  const call = prepareBlocks(fixture, SHAPE, rows);
  const q = halves(call);
  const size = { rows: rows.length, cols: SHAPE.heads * SHAPE.headDim };
  const out = emptyDigits(fixture, size);
  const given = { ...call.args, q };
  const { lse } = await call.states({ q });
  const expected = await digitWordsOf(fixture, floatRows(call.args.out.o), size);
  decodeAttention(fixture.commands, { ...given, out: { ...given.out, o: out.tensor }, outForm: "digits" });
  assert.deepEqual(await fixture.words(out.tensor), expected);
  assert.deepEqual(await fixture.words(given.out.lse), lse);
});

/** Rows that see so many are cut at one length, longer ones at the next. Other bounds only take longer. */
const BOUND = MATRIX_CUT.lengths[0]?.upTo ?? NaN;

for (const window of [undefined, BOUND]) {
  Deno.test(`decodeAttention() on matrix units cuts rows around a bound alike alone and in a block: window ${window}`, async () => {
    const rows = consecutiveRows({ from: BOUND - 5, rows: 40, window });
    const call = prepareBlocks(fixture, SHAPE, rows, { length: BOUND + 40 });
    const q = halves(call);
    const alone = await call.states({ q });
    const expected = reference(call, rows);
    assertClose(new Float32Array(alone.o.buffer), expected.o, { nmse: HALF_OPERANDS });
    assertClose(new Float32Array(alone.lse.buffer), expected.lse, { maxAbs: LOGIT_ERROR });
    const blocks = [{ first: 0, rows: rows.length }];
    // On GPUs by the lowest tile and by the highest.
    for (const rowsTogether of [7, 64]) {
      assert.deepEqual(await call.states({ q, blocks, rowsTogether }), alone, `${rowsTogether} rows`);
    }
  });
}

function halves({ args: { rows, q } }: PreparedBlocks, shape = SHAPE): Tensor {
  const make = (dtype: "f16", shape: readonly number[]) => fixture.zeros(dtype, shape);
  return halvesOf(fixture.commands, { shape, rows, q, attendedBy: "row", make });
}

function reference({ kv, q }: PreparedBlocks, rows: readonly TableRow[]) {
  const { heads, kvHeads, headDim } = SHAPE;
  const [o, lse]: [number[], number[]] = [[], []];
  const stride = Math.max(STRIDE, ...rows.map(({ kvLimit }) => kvLimit));
  const kept = new Float64Array(rows.length * heads * stride).fill(UNWRITTEN);
  rows.forEach(({ kvFrom, kvLimit, sequenceSlot }, index) => {
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const at = (index * heads + head) * headDim;
      const seen = Array.from({ length: Math.max(0, kvLimit - kvFrom) }, (_, i) => kvFrom + i);
      const keys = seen.map((local) => kv.k(sequenceSlot, local, kvHead));
      const scores = scoresOf(q.subarray(at, at + headDim), keys, 1 / Math.sqrt(headDim));
      kept.set(scores, (index * heads + head) * stride + kvFrom);
      const state = attend(scores, seen.map((local) => kv.v(sequenceSlot, local, kvHead)), headDim);
      o.push(...state.o);
      lse.push(state.lse);
    }
  });
  return { o, lse, scores: kept };
}
