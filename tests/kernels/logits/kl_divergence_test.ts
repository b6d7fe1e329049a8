import assert from "node:assert/strict";
import { keepLogits, keptWidth } from "../../../kernels/logits/keep_logits.ts";
import { klDivergence } from "../../../kernels/logits/kl_divergence.ts";
import { fromHalf, toHalf } from "../../../kernels/half.ts";
import { klDivergence as reference } from "../../reference/kl_divergence.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** f32 sums of up to 10⁵ terms of logits near 16. What f16 costs is in the reference, which gets the rounded row. */
const TOLERANCE = { maxAbs: 5e-6 };

/** Keeps rows of logits at places of a tensor of `capacity` rows. */
function keep(
  logits: Float32Array<ArrayBuffer>,
  { places, capacity, vocabulary }: { places: readonly number[][]; capacity: number; vocabulary: number },
) {
  const kept = fixture.zeros("f16", [capacity, keptWidth(vocabulary)]);
  keepLogits(fixture.commands, {
    logits: fixture.upload("f32", logits, [logits.length / vocabulary, vocabulary]),
    places: fixture.upload("u32", Uint32Array.from(places.flat()), [places.length, 2]),
    kept,
    count: places.length,
    vocabulary,
  });
  return kept;
}

Deno.test("keepLogits() rounds rows to their places, and cuts what f16 cannot hold", async () => {
  const vocabulary = 5;
  const logits = Float32Array.of(1, 2, 3, 4, 5, -1, 1e30, -1e30, 0.1, 0);
  const kept = keep(logits, { places: [[1, 2], [0, 0]], capacity: 3, vocabulary });
  const words = await fixture.words({ ...kept, shape: [3, keptWidth(vocabulary) / 2] });
  const rows = fromHalf(new Uint16Array(words.buffer));
  assert.deepEqual([...rows.subarray(0, 5)], [1, 2, 3, 4, 5]);
  assert.deepEqual([...rows.subarray(6, 11)], [0, 0, 0, 0, 0]);
  assert.deepEqual([...rows.subarray(12, 15)], [-1, 65504, -65504]);
  assertClose([...rows.subarray(15, 17)], [0.1, 0], { maxAbs: 1e-4 });
});

for (const [rows, vocabulary] of [[1, 1], [3, 7], [5, 1331], [2, 50001]] as const) {
  Deno.test(`klDivergence() equals plain loops, [${rows}, ${vocabulary}]`, async () => {
    const random = new Random(rows * vocabulary);
    const sparse = random.normals(rows * vocabulary, 4);
    const dense = sparse.map((logit, i) => logit + (i % 3 === 0 ? 0.3 : -0.1) * (i % vocabulary % 5));
    const kept = keep(sparse, {
      places: Array.from({ length: rows }, (_, row) => [row, 2 * (rows - 1 - row)]),
      capacity: 2 * rows,
      vocabulary,
    });
    const divergences = fixture.zeros("f32", [rows]);
    klDivergence(fixture.commands, {
      logits: fixture.upload("f32", dense, [rows, vocabulary]),
      kept,
      places: fixture.upload(
        "u32",
        Uint32Array.from({ length: 2 * rows }, (_, i) => i % 2 === 0 ? i / 2 : 2 * (rows - 1 - (i - 1) / 2)),
        [rows, 2],
      ),
      divergences,
      count: rows,
      vocabulary,
    });
    const row = (logits: Float32Array, i: number) => logits.subarray(i * vocabulary, (i + 1) * vocabulary);
    const expected = Array.from({ length: rows }, (_, i) => reference(row(dense, i), fromHalf(toHalf(row(sparse, i)))));
    assertClose(await fixture.floats(divergences), expected, TOLERANCE);
  });
}

Deno.test("klDivergence() of equal rows is next to nothing, and never below 0", async () => {
  const vocabulary = 1000;
  const logits = new Random(3).normals(vocabulary, 4);
  const divergences = fixture.zeros("f32", [1]);
  klDivergence(fixture.commands, {
    logits: fixture.upload("f32", logits, [1, vocabulary]),
    kept: keep(logits, { places: [[0, 0]], capacity: 1, vocabulary }),
    places: fixture.upload("u32", Uint32Array.of(0, 0), [1, 2]),
    divergences,
    count: 1,
    vocabulary,
  });
  const [found] = await fixture.floats(divergences);
  assert.ok(found !== undefined && found >= 0 && found < 1e-5, `${found}`);
});
