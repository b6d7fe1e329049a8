/**
 * GGUF files through the whole engine: tokens of the recorded prompts, their logits, and what follows them greedily. Takes
 * the files of `TIDEPOOL_GGUF`, a folder with an `expected.json`, in place of the checked-in ones.
 */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { everyLogprob, logprobsOf, mapsSettled, withSession } from "../support/engine_fixture.ts";
import { FIXTURES } from "../support/model_directory.ts";
import { testProvider } from "../support/test_provider.ts";

interface Prompt {
  readonly text: string;
  readonly ids: number[];
  readonly logits: number[];
  readonly greedy: number[];
}

interface Expected {
  readonly files: Readonly<Record<string, { readonly prompts: readonly Prompt[] }>>;
}

/** An f16 cache against f64 over the same dequantised weights; the largest measured is 0.013. */
const TOLERANCE = 0.03;

const FOLDER = Deno.env.get("TIDEPOOL_GGUF") ?? `${FIXTURES}gguf`;
const { files } = JSON.parse(await Deno.readTextFile(`${FOLDER}/expected.json`)) as Expected;

function logSoftmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const lse = top + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return logits.map((logit) => logit - lse);
}

for (const [name, { prompts }] of Object.entries(files)) {
  Deno.test(`Engine.run() gives the recorded logits and greedy tokens of ${name}`, async () => {
    const model = `${FOLDER}/${name}`;
    const tokenizer = await Tokenizer.load(model);
    const engine = await Engine.open({ model: { directory: model }, kvTokens: 1024, gpu: testProvider().name });
    try {
      const host = new SessionHost(engine);
      assert.equal(prompts.length, 3);
      for (const { text, ids, logits, greedy } of prompts) {
        assert.deepEqual([...tokenizer.encode(text)], ids.slice(1));
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
