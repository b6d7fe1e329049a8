import assert from "node:assert/strict";
import { tokenScores } from "../../../kernels/logits/token_scores.ts";
import { tokenScore } from "../../reference/token_scores.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** Sums of up to 10⁵ f32 exponentials: each errs by about 2e-7 of itself, the logarithm of their sum by no more. */
const ABSOLUTE = 1e-5;

for (const [rows, vocabulary] of [[0, 16], [1, 1], [3, 7], [5, 4096], [2, 50001]] as const) {
  Deno.test(`tokenScores() equals plain loops, [${rows}, ${vocabulary}]`, async () => {
    const random = new Random(rows + vocabulary);
    const logits = random.normals(rows * vocabulary, 4);
    const targets = random.integers(rows, vocabulary);
    const scores = fixture.zeros("f32", [rows, 2]);
    const best = fixture.zeros("u32", [rows]);
    tokenScores(fixture.commands, {
      logits: fixture.upload("f32", logits, [rows, vocabulary]),
      targets: fixture.upload("u32", targets, [rows]),
      scores,
      best,
      rows,
      vocabulary,
    });
    const expected = Array.from(
      targets,
      (target, row) => tokenScore(logits.subarray(row * vocabulary, (row + 1) * vocabulary), target),
    );
    assertClose(
      await fixture.floats(scores),
      expected.flatMap(({ logprob, logSumExp }) => [logprob, logSumExp]),
      { maxAbs: ABSOLUTE },
    );
    assert.deepEqual([...await fixture.words(best)], expected.map((score) => score.best));
  });
}
