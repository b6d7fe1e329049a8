/** Every fixture family through the whole engine: logits of the recorded prompts, and what follows them greedily. */

import { Engine } from "../../engine/engine.ts";
import { mapsSettled } from "../support/engine_fixture.ts";
import { FAMILIES, FIXTURES, readFixture } from "../support/model_directory.ts";
import { assertRecordedAnswers, type RecordedAnswer } from "../support/recorded_answers.ts";
import { testProvider } from "../support/test_provider.ts";

interface Expected {
  readonly prompts: readonly RecordedAnswer[];
}

/** An f16 cache and bf16 or f16 weights against f64; the largest measured is 0.013. */
const TOLERANCE = 0.03;

for (const family of FAMILIES) {
  Deno.test(`Engine.run() gives the recorded logits and greedy tokens of ${family}`, async () => {
    const { prompts } = await readFixture<Expected>(`${family}/expected.json`);
    const engine = await Engine.open({
      model: { directory: `${FIXTURES}${family}` },
      kvTokens: 1024,
      gpu: testProvider().name,
    });
    try {
      await assertRecordedAnswers(engine, prompts, TOLERANCE);
    } finally {
      await engine.close();
    }
    await mapsSettled();
  });
}
