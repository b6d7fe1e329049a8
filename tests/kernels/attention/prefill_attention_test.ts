import assert from "node:assert/strict";
import type { Tuning } from "../../../kernels/attention/decode_attention.ts";
import { prefillAttention } from "../../../kernels/attention/prefill_attention.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import { attend, scoresOf } from "../../reference/attention.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { type KvFixture, kvFixture, tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";
import { consecutiveRows, PREFILL_CASES } from "./attention_cases.ts";

const fixture = gpuFixture();

const TUNINGS = ["software", "hardware"] as const;

/** Logits of a few units, summed over at most 128 f32 products. */
const LOGIT_ERROR = 1e-5;

for (const { name, shape, rows, nmse } of PREFILL_CASES) {
  Deno.test(`prefillAttention() equals plain loops: ${name}`, async () => {
    const span = prepare(shape, rows);
    const expected = reference(span);
    for (const tuning of TUNINGS) {
      const { o, lse } = await run(span, { tuning });
      assertClose(o, expected.o, { nmse });
      assertClose(lse, expected.lse, { maxAbs: LOGIT_ERROR });
    }
  });
}

for (const tuning of TUNINGS) {
  for (const window of [undefined, 100]) {
    Deno.test(`prefillAttention() gives the same bits however a prompt is cut: ${tuning}, window ${window}`, async () => {
      const span = prepare({ heads: 4, kvHeads: 2, headDim: 64 }, consecutiveRows({ from: 0, rows: 333, window }));
      const whole = await run(span, { tuning });
      for (const chunk of [1, 7, 64, 200]) {
        const chunked = await run(span, { tuning, chunk });
        assert.deepEqual(chunked.o, whole.o, `chunks of ${chunk}`);
        assert.deepEqual(chunked.lse, whole.lse, `chunks of ${chunk}`);
      }
    });
  }
}

Deno.test("prefillAttention() refuses a head longer than workgroup memory holds", async () => {
  const span = prepare({ heads: 1, kvHeads: 1, headDim: 136 }, [tableRow({ kvLimit: 1 })]);
  await assert.rejects(run(span, { tuning: "hardware" }), /Cannot dispatch attention_tile: 1\/1 heads of 136/);
});

interface Span {
  readonly shape: HeadShape;
  readonly rows: readonly TableRow[];
  readonly kv: KvFixture;
  readonly q: Float32Array<ArrayBuffer>;
}

function prepare(shape: HeadShape, rows: readonly TableRow[]): Span {
  const length = Math.max(0, ...rows.map(({ kvLimit }) => kvLimit));
  const kv = kvFixture(fixture, shape, { slots: 2, length, seed: 5 });
  return { shape, rows, kv, q: new Random(6).normals(rows.length * shape.heads * shape.headDim) };
}

async function run(
  { shape, rows, kv, q }: Span,
  { tuning, chunk = rows.length }: { readonly tuning: Tuning; readonly chunk?: number },
) {
  const sizes = [rows.length, shape.heads, shape.headDim];
  const out = { o: fixture.zeros("f32", sizes), lse: fixture.zeros("f32", sizes.slice(0, 2)) };
  const given = { q: fixture.upload("f32", q, sizes), rowTable: uploadRows(fixture, rows) };
  for (let firstRow = 0; firstRow === 0 || firstRow < rows.length; firstRow += Math.max(1, chunk)) {
    prefillAttention(fixture.commands, {
      shape,
      ...kv.paged,
      ...given,
      firstRow,
      rows: Math.min(chunk, rows.length - firstRow),
      scale: 1 / Math.sqrt(shape.headDim),
      out,
      tuning,
    });
  }
  return { o: await fixture.floats(out.o), lse: await fixture.floats(out.lse) };
}

function reference({ shape, rows, kv, q }: Span) {
  const { heads, kvHeads, headDim } = shape;
  const [o, lse]: [number[], number[]] = [[], []];
  rows.forEach(({ sequenceSlot, kvFrom, kvLimit }, index) => {
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const visible = Array.from({ length: Math.max(0, kvLimit - kvFrom) }, (_, i) => kvFrom + i);
      const at = (index * heads + head) * headDim;
      const keys = visible.map((local) => kv.k(sequenceSlot, local, kvHead));
      const scores = scoresOf(q.subarray(at, at + headDim), keys, 1 / Math.sqrt(headDim));
      const state = attend(scores, visible.map((local) => kv.v(sequenceSlot, local, kvHead)), headDim);
      o.push(...state.o);
      lse.push(state.lse);
    }
  });
  return { o, lse };
}
