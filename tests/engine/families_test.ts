/** Every fixture family through the whole engine: logits of the recorded prompts, and what follows them greedily. */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import { everyLogprob, logprobsOf, mapsSettled, withSession } from "../support/engine_fixture.ts";
import { FAMILIES, FIXTURES, readFixture } from "../support/model_directory.ts";
import { testProvider } from "../support/test_provider.ts";

interface Expected {
  readonly prompts: readonly { readonly ids: number[]; readonly logits: number[]; readonly greedy: number[] }[];
}

/** An f16 cache and bf16 or f16 weights against f64; the largest measured is 0.013. */
const TOLERANCE = 0.03;

function logSoftmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const lse = top + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return logits.map((logit) => logit - lse);
}

for (const family of FAMILIES) {
  Deno.test(`Engine.run() gives the recorded logits and greedy tokens of ${family}`, async () => {
    const { prompts } = await readFixture<Expected>(`${family}/expected.json`);
    const engine = await Engine.open({
      model: { directory: `${FIXTURES}${family}` },
      kvTokens: 1024,
      gpu: testProvider().name,
    });
    try {
      const host = new SessionHost(engine);
      assert.equal(prompts.length, 3);
      for (const { ids, logits, greedy } of prompts) {
        const [given, tokens] = await withSession(
          host,
          { sampling: everyLogprob(engine.config.vocabSize) },
          async (session) => {
            const first = await session.prefill(ids);
            return [logprobsOf(first), await session.generate(first.token ?? 0, { maxTokens: greedy.length })];
          },
        );
        const worst = logSoftmax(logits).reduce((most, x, i) => Math.max(most, Math.abs(x - (given[i] ?? NaN))), 0);
        assert.ok(worst <= TOLERANCE, `${ids.length} tokens: off by ${worst}`);
        assert.deepEqual(tokens, greedy);
      }
    } finally {
      await engine.close();
    }
    await mapsSettled();
  });
}
