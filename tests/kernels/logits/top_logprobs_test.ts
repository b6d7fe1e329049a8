import assert from "node:assert/strict";
import {
  LISTED_TOKENS,
  LOGPROB_WORDS,
  type RowLogprobs,
  topLogprobs,
  unpackLogprobs,
} from "../../../kernels/logits/top_logprobs.ts";
import { tokenScore } from "../../reference/token_scores.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** Sums of up to 10⁵ f32 exponentials: each errs by about 2e-7 of itself, the logarithm of their sum by no more. */
const ABSOLUTE = 1e-5;

async function listed(
  logits: Float32Array<ArrayBuffer>,
  vocabulary: number,
  { places, tokens }: { places: readonly (readonly [row: number, token: number])[]; tokens: readonly number[] },
): Promise<RowLogprobs[]> {
  const results = fixture.zeros("u32", [places.length, LOGPROB_WORDS]);
  topLogprobs(fixture.commands, {
    logits: fixture.upload("f32", logits, [logits.length / vocabulary, vocabulary]),
    places: fixture.upload("u32", Uint32Array.from(places.flat()), [places.length, 2]),
    tokens: fixture.upload("u32", Uint32Array.from(tokens), [tokens.length]),
    results,
    count: places.length,
    vocabulary,
  });
  const words = await fixture.words(results);
  return places.map((_, i) => unpackLogprobs(words, i, vocabulary));
}

/** The highest logits as sorting gives them. */
function sorted(row: Float32Array): RowLogprobs["top"] {
  return Array.from(row, (logit, token) => ({ token, logit }))
    .sort((a, b) => b.logit - a.logit || a.token - b.token)
    .slice(0, LISTED_TOKENS);
}

function assertRow(given: RowLogprobs | undefined, row: Float32Array, token: number): void {
  const { logSumExp } = tokenScore(row, token);
  assert.ok(Math.abs((given?.logSumExp ?? NaN) - logSumExp) < ABSOLUTE, `${given?.logSumExp} is not ${logSumExp}`);
  assert.equal(given?.tokenLogit, row[token]);
  assert.deepEqual(given?.top, sorted(row));
}

for (const [rows, vocabulary] of [[0, 16], [1, 1], [3, 7], [2, 20], [2, 21], [5, 4096], [2, 50001]] as const) {
  Deno.test(`topLogprobs() equals sorting, [${rows}, ${vocabulary}]`, async () => {
    const random = new Random(rows + vocabulary);
    const logits = random.normals(rows * vocabulary, 4);
    const tokens = Array.from({ length: rows + 1 }, () => random.integer(vocabulary));
    // Neither all rows, nor in order.
    const places = Array.from({ length: rows }, (_, i) => [rows - 1 - i, i + 1] as const);
    const results = await listed(logits, vocabulary, { places, tokens });
    for (const [i, [row, token]] of places.entries()) {
      assertRow(results[i], logits.subarray(row * vocabulary, (row + 1) * vocabulary), tokens[token] ?? NaN);
    }
  });
}

Deno.test("topLogprobs() breaks ties by lower id, at the end of the list as within it", async () => {
  const random = new Random(3);
  const vocabulary = 3000;
  for (const levels of [1, 2, 40, 200]) {
    const logits = Float32Array.from({ length: vocabulary }, () => random.integer(levels) - levels / 2);
    const [result] = await listed(logits, vocabulary, { places: [[0, 0]], tokens: [2999] });
    assertRow(result, logits, 2999);
  }
});

Deno.test("topLogprobs() lists masked tokens last, and survives large logits", async () => {
  const logits = new Float32Array(500).fill(-1e32);
  logits[77] = 1000;
  logits[3] = 1000;
  const [result] = await listed(logits, 500, { places: [[0, 0]], tokens: [77] });
  assertRow(result, logits, 77);
  assert.deepEqual(result?.top.slice(0, 3).map(({ token }) => token), [3, 77, 0]);
});
