import assert from "node:assert/strict";
import { matrixTileFor } from "../../../kernels/attention/tile/matrix_tile_plan.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { ROW_FORM_NMSE } from "../../support/row_values.ts";
import { consecutiveRows, PREFILL_CASES } from "../attention/attention_cases.ts";
import { prefillSpan, referencePrefill, runPrefill } from "../attention/prefill_spans.ts";

const fixture = gpuFixture();

/** Queries and weights are rounded to f16, 2^-12 each. */
const HALF_OPERANDS = 1e-6;
/** Logits of a few units, from queries that err by 2^-12. */
const LOGIT_ERROR = 2e-3;

/** The shortest that every adapter's tile takes: the kernel compiles soonest for them. */
const SHORT_HEADS = { heads: 2, kvHeads: 2, headDim: 32 };

for (const { name, shape, rows } of PREFILL_CASES) {
  Deno.test(`prefillAttention() on matrix units equals plain loops: ${name}`, async () => {
    if (matrixTileFor(fixture.gpu.info, shape) === undefined) {
      const { headDim } = shape;
      assert.ok(headDim % 32 !== 0 || headDim > 128, `heads of ${headDim} must not be left to the plain tile`);
      return;
    }
    const span = prefillSpan(fixture, shape, rows);
    const expected = referencePrefill(span);
    const { o, lse } = await runPrefill(fixture, span, { tuning: "matrix" });
    assertClose(o, expected.o, { nmse: HALF_OPERANDS });
    assertClose(lse, expected.lse, { maxAbs: LOGIT_ERROR });
  });
}

Deno.test("prefillAttention() on matrix units writes outputs as halves", async () => {
  const rows = consecutiveRows({ from: 0, rows: 37 });
  const span = prefillSpan(fixture, SHORT_HEADS, rows);
  const [single, halved] = [
    await runPrefill(fixture, span, { tuning: "matrix" }),
    await runPrefill(fixture, span, {
      tuning: "matrix",
      outForm: "f16",
    }),
  ];
  assertClose(halved.o, single.o, { nmse: ROW_FORM_NMSE.f16 });
  assert.deepEqual(halved.lse, single.lse);
});

for (const window of [undefined, 100]) {
  Deno.test(`prefillAttention() on matrix units gives the same bits however a prompt is cut: window ${window}`, async () => {
    const rows = consecutiveRows({ from: 0, rows: 150, window });
    const span = prefillSpan(fixture, { heads: 4, kvHeads: 2, headDim: 64 }, rows);
    // Queries ten times as large: maxima rise by more than the headroom, so that outputs are rescaled.
    span.q.forEach((value, i) => span.q[i] = 10 * value);
    const whole = await runPrefill(fixture, span, { tuning: "matrix" });
    const expected = referencePrefill(span);
    assertClose(whole.o, expected.o, { nmse: 1e-4 });
    for (const chunk of [1, 7, 64]) {
      const chunked = await runPrefill(fixture, span, { tuning: "matrix", chunk });
      assert.deepEqual(chunked.o, whole.o, `chunks of ${chunk}`);
      assert.deepEqual(chunked.lse, whole.lse, `chunks of ${chunk}`);
    }
  });
}
