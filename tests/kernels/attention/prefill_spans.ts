/** Spans of prefill for tests: made, attended on the GPU, and attended by plain loops. */

import { prefillAttention } from "../../../kernels/attention/prefill_attention.ts";
import type { Tuning } from "../../../kernels/attention/tuning.ts";
import { type RowForm, takeRows } from "../../../kernels/rows.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import { attend, scoresOf } from "../../reference/attention.ts";
import type { GpuFixture } from "../../support/gpu_fixture.ts";
import { type KvFixture, kvFixture, uploadRows } from "../../support/kv_fixture.ts";
import { halvesOf } from "../../support/half_queries_fixture.ts";
import { rowValues } from "../../support/row_values.ts";
import { Random } from "../../support/random.ts";

/** One span to attend. */
export interface PrefillSpan {
  readonly shape: HeadShape;
  readonly rows: readonly TableRow[];
  readonly kv: KvFixture;
  readonly q: Float32Array<ArrayBuffer>;
}

/** A span with random queries over random keys and values. */
export function prefillSpan(fixture: GpuFixture, shape: HeadShape, rows: readonly TableRow[]): PrefillSpan {
  const length = Math.max(0, ...rows.map(({ kvLimit }) => kvLimit));
  const kv = kvFixture(fixture, shape, { slots: 2, length, seed: 5 });
  return { shape, rows, kv, q: new Random(6).normals(rows.length * shape.heads * shape.headDim) };
}

/** Attends a span on the GPU, in chunks. */
export async function runPrefill(
  fixture: GpuFixture,
  { shape, rows, kv, q }: PrefillSpan,
  { tuning, chunk = rows.length, outForm = "f32" }: {
    readonly tuning: Tuning | "matrix";
    readonly chunk?: number;
    readonly outForm?: RowForm;
  },
): Promise<{ readonly o: Float32Array; readonly lse: Float32Array }> {
  const sizes = [rows.length, shape.heads, shape.headDim];
  const outShape = { rows: rows.length, cols: shape.heads * shape.headDim };
  const o = takeRows(fixture.scratch, `outputs, ${outForm}`, { form: outForm, ...outShape });
  const out = { o: o.tensor, lse: fixture.zeros("f32", sizes.slice(0, 2)) };
  const queries = fixture.upload("f32", q, sizes);
  const make = (dtype: "f16", shape: readonly number[]) => fixture.zeros(dtype, shape);
  const given = tuning === "matrix"
    ? { q: halvesOf(fixture.commands, { shape, rows: rows.length, q: queries, attendedBy: "chunk", make }) }
    : { q: queries, tuning };
  const rowTable = uploadRows(fixture, rows);
  for (let firstRow = 0; firstRow === 0 || firstRow < rows.length; firstRow += Math.max(1, chunk)) {
    prefillAttention(fixture.commands, {
      shape,
      ...kv.paged,
      ...given,
      rowTable,
      firstRow,
      rows: Math.min(chunk, rows.length - firstRow),
      scale: 1 / Math.sqrt(shape.headDim),
      out,
      outForm,
    });
  }
  return { o: Float32Array.from(await rowValues(fixture, o, outShape)), lse: await fixture.floats(out.lse) };
}

/** The same by plain loops. */
export function referencePrefill(
  { shape, rows, kv, q }: PrefillSpan,
): { readonly o: readonly number[]; readonly lse: readonly number[] } {
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
