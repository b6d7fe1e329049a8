import assert from "node:assert/strict";
import { embed } from "../../../kernels/products/embed.ts";
import { fromHalf } from "../../../kernels/half.ts";
import { createWeight, freeWeight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** A power of two: products with it are exact. */
const SCALE = 0.25;

for (const [rows, vocabulary, hidden, partBytes] of [[0, 5, 8, 1e6], [1, 1, 8, 1e6], [70, 301, 264, 264 * 4 * 64]]) {
  for (const dtype of ["f16", "f32"] as const) {
    Deno.test(`embed() copies rows exactly, and scales them, [${rows}] of ${dtype} [${vocabulary}, ${hidden}]`, async () => {
      const [count, size, cols] = [Number(rows), Number(vocabulary), Number(hidden)];
      const random = new Random(4);
      const { halves } = random.halves(size * cols);
      const values = fromHalf(halves);
      const weight = createWeight(fixture.gpu, "embedding", { rows: size, cols, dtype, partBytes: Number(partBytes) });
      writeRows(fixture, weight, { firstRow: 0, source: "F16", data: new Uint8Array(halves.buffer) });
      // The first and the last row of a part are among them.
      const tokens = Uint32Array.from({ length: count }, (_, i) => [0, size - 1, 63, 64][i] ?? random.integer(size));
      if (size === 1) tokens.fill(0);
      const out = fixture.zeros("f32", [count, cols]);
      const expected = [...tokens].flatMap((token) => [...values.subarray(token * cols, (token + 1) * cols)]);
      const given = { weight, tokens: fixture.upload("u32", tokens, [count]), out, rows: count };
      embed(fixture.commands, given);
      assert.deepEqual([...await fixture.floats(out)], expected);
      embed(fixture.commands, { ...given, scale: SCALE });
      assert.deepEqual([...await fixture.floats(out)], expected.map((value) => value * SCALE));
      freeWeight(fixture.gpu, weight);
    });
  }
}
