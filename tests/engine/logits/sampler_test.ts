/** Settings of a request through the whole engine: seeds, penalties, biases, cuts, log-probabilities. */

import assert from "node:assert/strict";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import type { SamplingSettings, SpanResult } from "../../../engine/span.ts";
import { engineFixture, runTogether, withSession } from "../../support/engine_fixture.ts";
import { FIXTURES, readFixture } from "../../support/model_directory.ts";

const fixture = engineFixture({ directory: `${FIXTURES}llama` }, 4096);
const VOCABULARY = 512;
const COUNT = 20;

const { prompts } = await readFixture<{ prompts: { ids: number[] }[] }>("llama/expected.json");
const PROMPT = prompts[1]?.ids ?? [];

const SEEDED: SamplingSettings = { ...GREEDY, temperature: 0.8, topP: 0.9, topK: 60, minP: 0.01, seed: 11 };

function sessionOptions(sampling: SamplingSettings) {
  return { sampling, promptTokens: PROMPT.length };
}

/** The answer to the prompt under some settings. */
function answer(changes: Partial<SamplingSettings>, count = COUNT): Promise<number[]> {
  return withSession(fixture.host, sessionOptions({ ...GREEDY, ...changes }), async (session) => {
    const { token } = await session.prefill(PROMPT);
    return await session.generate(token ?? 0, { maxTokens: count });
  });
}

/** What is drawn right after the prompt. */
function drawn(changes: Partial<SamplingSettings>): Promise<SpanResult> {
  return withSession(
    fixture.host,
    sessionOptions({ ...GREEDY, ...changes }),
    (session) => session.prefill(PROMPT),
  );
}

Deno.test("draw() repeats itself for the same seed, alone and among others, and for no other", async () => {
  const alone = await answer(SEEDED);
  assert.ok(new Set(alone).size > 3, `${alone}`);
  assert.deepEqual(await answer(SEEDED), alone);
  assert.notDeepEqual(await answer({ ...SEEDED, seed: 12 }), alone);
  assert.notDeepEqual(await answer({}), alone);
  const crowd = [{ seed: 1 }, {}, { seed: 11, topP: 1, temperature: 1.5 }, { temperature: 0 }];
  const sessions = crowd.map((changes) => fixture.host.open(sessionOptions({ ...SEEDED, ...changes })));
  try {
    let tokens: (number | undefined)[] = [];
    const answers: number[] = [];
    while (answers.length < COUNT) {
      const spans = sessions.map((session, i) =>
        answers.length === 0
          ? session.plan({ kind: "prefill", tokens: Uint32Array.from(PROMPT), logits: "last" })
          : session.plan({
            kind: "decode",
            attention: "dense",
            tokens: Uint32Array.of(tokens[i] ?? 0),
            logits: "last",
          })
      );
      tokens = (await runTogether(fixture.host, spans)).spans.map(({ token }) => token);
      answers.push(tokens[1] ?? NaN);
    }
    assert.deepEqual(answers, alone);
  } finally {
    for (const session of sessions) await session.close();
  }
});

Deno.test("draw() with top_k 1 is greedy at any temperature", async () => {
  const greedy = await answer({});
  assert.deepEqual(await answer({ temperature: 5, topK: 1, seed: 3 }), greedy);
  assert.deepEqual(await answer({ temperature: 5, topP: 0, seed: 3 }), greedy);
  assert.deepEqual(await answer({ temperature: 5, minP: 1, seed: 3 }), greedy);
});

Deno.test("draw() obeys biases: +100 forces a token, −100 bans one", async () => {
  const [best] = await answer({}, 1);
  assert.ok(best !== undefined);
  assert.equal((await drawn({ logitBias: [[123, 100]] })).token, 123);
  assert.notEqual((await drawn({ logitBias: [[best, -100]] })).token, best);
  assert.deepEqual(await answer({ temperature: 1, logitBias: [[7, 100]] }, 5), [7, 7, 7, 7, 7]);
});

Deno.test("draw() suppresses tokens until there are enough of others", async () => {
  const forced = { logitBias: [[9, 100]], suppressed: [9] } as const;
  const tokens = await answer({ ...forced, minTokens: 3 }, 6);
  assert.ok(tokens.slice(0, 3).every((token) => token !== 9), `${tokens}`);
  assert.deepEqual(tokens.slice(3), [9, 9, 9]);
});

Deno.test("draw() penalises what was said: presence, frequency and repetition change a stuck answer", async () => {
  const stuck = [[300, 100]] as const;
  assert.deepEqual(await answer({ logitBias: stuck }, 4), [300, 300, 300, 300]);
  const presence = await answer({ logitBias: stuck, presencePenalty: 100 }, 4);
  assert.equal(presence.filter((token) => token === 300).length, 1, `${presence}`);
  const frequency = await answer({ logitBias: stuck, frequencyPenalty: 50 }, 6);
  assert.equal(frequency.filter((token) => token === 300).length, 2, `${frequency}`);
  const repetition = await answer({ repetitionPenalty: 1e6 }, 12);
  const said = new Set([...PROMPT, ...repetition]);
  assert.equal(said.size, new Set(PROMPT).size + 12, `${repetition}`);
});

Deno.test("draw() reports log-probabilities of the model, whatever was done to draw", async () => {
  const plain = await drawn({ topLogprobs: VOCABULARY });
  const all = plain.logprobs?.top ?? [];
  assert.equal(all.length, VOCABULARY);
  const sum = all.reduce((total, { logprob }) => total + Math.exp(logprob), 0);
  // The log-sum-exp is one of f32.
  assert.ok(Math.abs(sum - 1) < 1e-6, `probabilities sum to ${sum}`);
  assert.ok(all.every(({ logprob }, i) => i === 0 || logprob <= (all[i - 1]?.logprob ?? NaN)));
  assert.equal(all[0]?.token, plain.token);
  assert.equal(all[0]?.logprob, plain.logprobs?.logprob);
  const bent = await drawn({ temperature: 0.1, topK: 3, logitBias: [[123, 100]], topLogprobs: 4 });
  assert.equal(bent.token, 123);
  assert.deepEqual(bent.logprobs?.top, all.slice(0, 4));
  assert.equal(bent.logprobs?.logprob, all.find(({ token }) => token === 123)?.logprob);
});

Deno.test("draw() reports the drawn token's log-probability alone, and none at all, when asked so", async () => {
  const alone = await drawn({ topLogprobs: 0 });
  assert.deepEqual(alone.logprobs?.top, []);
  assert.ok((alone.logprobs?.logprob ?? 1) < 0);
  assert.equal((await drawn({})).logprobs, undefined);
});

Deno.test("draw() keeps rows apart that ask for log-probabilities and rows that do not", async () => {
  const asked = [undefined, 2, undefined, 512, 0];
  const sessions = asked.map((topLogprobs, i) =>
    fixture.host.open(sessionOptions({ ...GREEDY, topLogprobs, logitBias: i === 3 ? [[123, 100]] : [] }))
  );
  try {
    const plans = sessions.map((session, i) =>
      session.plan({ kind: "prefill", tokens: Uint32Array.from(PROMPT.slice(0, 10 + i)), logits: "last" })
    );
    const { spans } = await runTogether(fixture.host, plans);
    for (const [i, topLogprobs] of asked.entries()) {
      const alone = await withSession(
        fixture.host,
        { sampling: { ...GREEDY, topLogprobs: 512 } },
        (session) => session.prefill(PROMPT.slice(0, 10 + i)),
      );
      assert.equal(spans[i]?.token, i === 3 ? 123 : alone.token);
      const expected = topLogprobs === undefined ? undefined : alone.logprobs?.top.slice(0, topLogprobs);
      assert.deepEqual(spans[i]?.logprobs?.top, expected);
    }
  } finally {
    for (const session of sessions) await session.close();
  }
});
