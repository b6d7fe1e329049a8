import assert from "node:assert/strict";
import {
  adjustLogits,
  type Adjustment,
  ADJUSTMENT_WORDS,
  BANNED,
  packAdjustments,
} from "../../../kernels/logits/adjust_logits.ts";
import { adjustLogits as expectedLogits } from "../../reference/adjust_logits.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

async function adjusted(logits: Float32Array<ArrayBuffer>, rows: number, list: readonly Adjustment[]) {
  const vocabulary = logits.length / rows;
  const tensor = fixture.upload("f32", logits, [rows, vocabulary]);
  const words = packAdjustments(list);
  const adjustments = fixture.upload("u32", words, [list.length, ADJUSTMENT_WORDS]);
  adjustLogits(fixture.commands, { logits: tensor, adjustments, count: list.length, rows, vocabulary });
  return await fixture.floats(tensor);
}

Deno.test("adjustLogits() equals plain loops on 300 scattered adjustments", async () => {
  const [rows, vocabulary] = [3, 1001];
  const random = new Random(8);
  const logits = random.normals(rows * vocabulary, 5);
  const list = Array.from({ length: 300 }, (_, i) => ({
    row: i % rows,
    token: (i * 17) % vocabulary,
    repetition: 0.5 + random.uniform() * 2,
    bias: random.normal(),
  }));
  // One division, one addition in f32.
  assertClose(await adjusted(logits, rows, list), expectedLogits(logits, vocabulary, list), { maxAbs: 1e-5 });
});

Deno.test("adjustLogits() divides positive logits, multiplies the others, then adds; the rest stays", async () => {
  const logits = Float32Array.of(4, -4, 0, 7);
  const list = [0, 1, 2].map((token) => ({ row: 0, token, repetition: 2, bias: 1 }));
  assert.deepEqual([...await adjusted(logits, 1, list)], [3, -7, 1, 7]);
});

Deno.test("adjustLogits() bans with a finite number, and ignores what lies outside", async () => {
  const logits = Float32Array.of(1, 2, 3, 4);
  const list = [
    { row: 1, token: 0, repetition: 1, bias: BANNED },
    { row: 2, token: 0, repetition: 1, bias: 5 },
    { row: 0, token: 2, repetition: 1, bias: 5 },
  ];
  assert.deepEqual([...await adjusted(logits, 2, list)], [1, 2, Math.fround(BANNED), 4]);
});

Deno.test("adjustLogits() with an empty list changes nothing", async () => {
  assert.deepEqual([...await adjusted(Float32Array.of(1, 2), 1, [])], [1, 2]);
});
