import assert from "node:assert/strict";

import { MASKED, maskLogits, maskWords } from "../../../kernels/logits/mask_logits.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

Deno.test("maskLogits() masks the rows named and nothing else, with a vocabulary that fills no whole word", async () => {
  const [rows, vocabulary] = [4, 1001];
  const words = maskWords(vocabulary);
  const random = new Random(3);
  const logits = random.normals(rows * vocabulary);
  const masked = [2, 0];
  const masks = random.integers(masked.length * words, 2 ** 32);
  const tensor = fixture.upload("f32", logits, [rows, vocabulary]);
  maskLogits(fixture.commands, {
    logits: tensor,
    rows: fixture.upload("u32", Uint32Array.from(masked), [masked.length]),
    masks: fixture.upload("u32", masks, [masked.length, words]),
    count: masked.length,
    vocabulary,
  });
  const expected = logits.slice();
  masked.forEach((row, i) => {
    for (let token = 0; token < vocabulary; token++) {
      const word = masks[i * words + (token >> 5)] ?? 0;
      if (((word >>> (token & 31)) & 1) === 0) expected[row * vocabulary + token] = MASKED;
    }
  });
  assert.deepEqual(await fixture.floats(tensor), expected);
});

Deno.test("maskLogits() of no rows does nothing", async () => {
  const logits = Float32Array.of(1, 2, 3);
  const tensor = fixture.upload("f32", logits, [1, 3]);
  const none = fixture.upload("u32", new Uint32Array(1), [1]);
  maskLogits(fixture.commands, { logits: tensor, rows: none, masks: none, count: 0, vocabulary: 3 });
  assert.deepEqual(await fixture.floats(tensor), logits);
});
