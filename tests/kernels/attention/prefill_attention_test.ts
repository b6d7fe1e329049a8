import assert from "node:assert/strict";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow } from "../../support/kv_fixture.ts";
import { consecutiveRows, PREFILL_CASES } from "./attention_cases.ts";
import { prefillSpan, referencePrefill, runPrefill } from "./prefill_spans.ts";

const fixture = gpuFixture();

const TUNINGS = ["software", "hardware"] as const;

/** Logits of a few units, summed over at most 128 f32 products. */
const LOGIT_ERROR = 1e-5;

for (const { name, shape, rows, nmse } of PREFILL_CASES) {
  Deno.test(`prefillAttention() equals plain loops: ${name}`, async () => {
    const span = prefillSpan(fixture, shape, rows);
    const expected = referencePrefill(span);
    for (const tuning of TUNINGS) {
      const { o, lse } = await runPrefill(fixture, span, { tuning });
      assertClose(o, expected.o, { nmse });
      assertClose(lse, expected.lse, { maxAbs: LOGIT_ERROR });
    }
  });
}

for (const tuning of TUNINGS) {
  for (const window of [undefined, 100]) {
    Deno.test(`prefillAttention() gives the same bits however a prompt is cut: ${tuning}, window ${window}`, async () => {
      const span = prefillSpan(
        fixture,
        { heads: 4, kvHeads: 2, headDim: 64 },
        consecutiveRows({ from: 0, rows: 200, window }),
      );
      const whole = await runPrefill(fixture, span, { tuning });
      for (const chunk of [1, 7, 64, 130]) {
        const chunked = await runPrefill(fixture, span, { tuning, chunk });
        assert.deepEqual(chunked.o, whole.o, `chunks of ${chunk}`);
        assert.deepEqual(chunked.lse, whole.lse, `chunks of ${chunk}`);
      }
    });
  }
}

Deno.test("prefillAttention() refuses a head longer than workgroup memory holds", async () => {
  const span = prefillSpan(fixture, { heads: 1, kvHeads: 1, headDim: 264 }, [tableRow({ kvLimit: 1 })]);
  await assert.rejects(
    runPrefill(fixture, span, { tuning: "hardware" }),
    /Cannot dispatch attention_tile: 1\/1 heads of 264/,
  );
});
