/** Masks of spans through the whole engine: draws, batches, log-probabilities, audits, and what is refused. */

import assert from "node:assert/strict";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import type { SamplingSettings } from "../../../engine/span.ts";
import { maskWords } from "../../../kernels/logits/mask_logits.ts";
import { engineFixture, runTogether, withSession } from "../../support/engine_fixture.ts";
import { FIXTURES, readFixture } from "../../support/model_directory.ts";

const fixture = engineFixture({ directory: `${FIXTURES}llama` }, 4096);
const WORDS = maskWords(512);

const { prompts } = await readFixture<{ prompts: { ids: number[] }[] }>("llama/expected.json");
const PROMPT = Uint32Array.from(prompts[1]?.ids ?? []);
const SEEDED: SamplingSettings = { ...GREEDY, temperature: 1, seed: 5 };

/** One mask after the other, each of the tokens listed. */
function masksOf(...lists: readonly (readonly number[])[]): Uint32Array {
  const masks = new Uint32Array(lists.length * WORDS);
  lists.forEach((tokens, i) => {
    for (const token of tokens) {
      const at = i * WORDS + (token >> 5);
      masks[at] = (masks[at] ?? 0) | (1 << (token & 31));
    }
  });
  return masks;
}

function prefill(sampling: SamplingSettings, masks?: Uint32Array) {
  return withSession(
    fixture.host,
    { sampling, promptTokens: PROMPT.length },
    (session) => session.run({ kind: "prefill", tokens: PROMPT, logits: "last", ...(masks && { masks }) }),
  );
}

Deno.test("a mask of all tokens changes nothing, one of a few leaves only those", async () => {
  const all = masksOf(Array.from({ length: 512 }, (_, token) => token));
  for (const sampling of [GREEDY, SEEDED]) {
    const free = (await prefill(sampling)).token ?? -1;
    assert.equal((await prefill(sampling, all)).token, free);
    const few = [3, 77, 511].filter((token) => token !== free);
    assert.ok(few.includes((await prefill(sampling, masksOf(few))).token ?? -1));
  }
});

Deno.test("log-probabilities are those of the masked distribution", async () => {
  const { token, logprobs } = await prefill({ ...SEEDED, topLogprobs: 3 }, masksOf([3, 77]));
  assert.ok(token === 3 || token === 77);
  const [first, second] = logprobs?.top ?? [];
  assert.deepEqual([first?.token, second?.token].sort(), [3, 77]);
  const total = Math.exp(first?.logprob ?? NaN) + Math.exp(second?.logprob ?? NaN);
  assert.ok(Math.abs(total - 1) < 1e-5, `${total}`);
  assert.ok((logprobs?.top[2]?.logprob ?? 0) < -1e30);
});

Deno.test("the only token that a mask allows is drawn although it is suppressed or biased away", async () => {
  const suppressed = { ...SEEDED, minTokens: 9, suppressed: [3], logitBias: [[3, -100]] as const };
  for (const sampling of [suppressed, { ...suppressed, temperature: 0 }, { ...suppressed, topP: 0.5, topK: 9 }]) {
    assert.equal((await prefill(sampling, masksOf([3]))).token, 3);
  }
});

Deno.test("rows of a batch keep to their own masks, and rows without one draw as they do alone", async () => {
  const masks = [masksOf([3]), undefined, masksOf([77])];
  const alone = (await prefill(SEEDED)).token;
  const sessions = masks.map(() => fixture.host.open({ sampling: SEEDED, promptTokens: PROMPT.length }));
  try {
    const { spans } = await runTogether(
      fixture.host,
      sessions.map((session, i) => {
        const mask = masks[i];
        return session.plan({ kind: "prefill", tokens: PROMPT, logits: "last", ...(mask && { masks: mask }) });
      }),
    );
    assert.deepEqual(spans.map(({ token }) => token), [3, alone, 77]);
  } finally {
    for (const session of sessions) await session.close();
  }
});

Deno.test("each row of an audit has a mask of its own", async () => {
  await withSession(
    fixture.host,
    { sampling: SEEDED, promptTokens: PROMPT.length, audited: true },
    async (session) => {
      await session.prefill(PROMPT, "none");
      const { audit } = await session.run({
        kind: "decode",
        attention: "dense",
        tokens: Uint32Array.of(5, 6, 7),
        logits: "audit",
        masks: masksOf([10], [20, 21], [30]),
      });
      assert.deepEqual([audit?.tokens[0], audit?.tokens[2]], [10, 30]);
      assert.ok([20, 21].includes(audit?.tokens[1] ?? -1));
    },
  );
});

Deno.test("masks of a wrong length are refused, and change nothing", async () => {
  await assert.rejects(prefill(GREEDY, new Uint32Array(WORDS + 1)), /its masks have 17 words, not 16/);
  await withSession(fixture.host, {}, async (session) => {
    const masks = masksOf([1]);
    await assert.rejects(session.run({ kind: "prefill", tokens: PROMPT, logits: "none", masks }), /16 words, not 0/);
  });
});
