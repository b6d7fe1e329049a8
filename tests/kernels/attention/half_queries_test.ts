import assert from "node:assert/strict";
import { fromHalf, MAX_HALF } from "../../../kernels/half.ts";
import { halfQueries } from "../../../kernels/attention/half_queries.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** Tiles read beyond the last row. */
const SPARE_ROWS = 3;
const SCALE = 0.125;

for (
  const { rows, heads, kvHeads, headDim } of [
    { rows: 0, heads: 2, kvHeads: 1, headDim: 16 },
    { rows: 1, heads: 4, kvHeads: 2, headDim: 64 },
    { rows: 37, heads: 7, kvHeads: 1, headDim: 24 },
  ]
) {
  Deno.test(`halfQueries() puts the heads of a KV head together: ${rows} rows of ${heads}/${kvHeads}×${headDim}`, async () => {
    const group = heads / kvHeads;
    const q = new Random(1).normals(rows * heads * headDim);
    const out = fixture.zeros("f16", [kvHeads, rows + SPARE_ROWS, group, headDim]);
    if (rows > 0) q[0] = 1e6;
    halfQueries(fixture.commands, {
      shape: { heads, kvHeads, headDim },
      rows,
      q: fixture.upload("f32", q, [rows, heads, headDim]),
      scale: SCALE,
      out,
    });
    const expected = new Float64Array(kvHeads * (rows + SPARE_ROWS) * group * headDim);
    q.forEach((value, i) => {
      const [row, head] = [Math.floor(i / (heads * headDim)), Math.floor(i / headDim) % heads];
      const place = (Math.floor(head / group) * (rows + SPARE_ROWS) + row) * group + head % group;
      // Scores are in units of log2.
      expected[place * headDim + i % headDim] = Math.min(MAX_HALF, value * SCALE * Math.LOG2E);
    });
    fixture.commands.submit();
    const [bytes] = await fixture.gpu.read([{ tensor: out }]);
    assert.ok(bytes !== undefined);
    const halves = fromHalf(new Uint16Array(bytes.buffer)).subarray(0, expected.length);
    // Rounded to f16, 2^-11 of a value at most.
    for (const [i, value] of expected.entries()) {
      assertClose([halves[i] ?? NaN], [value], { maxAbs: Math.abs(value) / 2 ** 11 + 1e-7 });
    }
  });
}
