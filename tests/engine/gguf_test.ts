/**
 * GGUF files through the whole engine: tokens of the recorded prompts, their logits, and what follows them greedily. Takes
 * the files of `TIDEPOOL_GGUF`, a folder with an `expected.json`, in place of the checked-in ones.
 */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { mapsSettled } from "../support/engine_fixture.ts";
import { FIXTURES } from "../support/model_directory.ts";
import { assertRecordedAnswers, type RecordedAnswer } from "../support/recorded_answers.ts";
import { testProvider } from "../support/test_provider.ts";

interface Prompt extends RecordedAnswer {
  readonly text: string;
}

interface Expected {
  readonly files: Readonly<Record<string, { readonly prompts: readonly Prompt[] }>>;
}

/** An f16 cache against f64 over the same dequantised weights; the largest measured is 0.013. */
const TOLERANCE = 0.03;

const FOLDER = Deno.env.get("TIDEPOOL_GGUF") ?? `${FIXTURES}gguf`;
const { files } = JSON.parse(await Deno.readTextFile(`${FOLDER}/expected.json`)) as Expected;

for (const [name, { prompts }] of Object.entries(files)) {
  Deno.test(`Engine.run() gives the recorded logits and greedy tokens of ${name}`, async () => {
    const model = `${FOLDER}/${name}`;
    const tokenizer = await Tokenizer.load(model);
    const engine = await Engine.open({ model: { directory: model }, kvTokens: 1024, gpu: testProvider().name });
    try {
      for (const { text, ids } of prompts) assert.deepEqual([...tokenizer.encode(text)], ids.slice(1));
      await assertRecordedAnswers(engine, prompts, TOLERANCE);
    } finally {
      await engine.close();
    }
    await mapsSettled();
  });
}
