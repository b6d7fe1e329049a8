/** The oracle itself against the recorded logits of every fixture family. */

import assert from "node:assert/strict";

import { FAMILIES, FIXTURES } from "../support/model_directory.ts";
import { ReferenceModel } from "./transformer.ts";

interface Expected {
  readonly prompts: readonly { readonly ids: number[]; readonly logits: number[]; readonly greedy: number[] }[];
}

/** Half a unit of the 5 decimals that the fixtures are rounded to; f64 against f64 leaves nothing else. */
const TOLERANCE = 5.1e-6;

for (const family of FAMILIES) {
  Deno.test(`ReferenceModel.forward() gives the recorded logits of ${family}`, async () => {
    const model = await ReferenceModel.load(`${FIXTURES}${family}`);
    const expected: Expected = JSON.parse(await Deno.readTextFile(`${FIXTURES}${family}/expected.json`));
    for (const prompt of expected.prompts) {
      const logits = model.forward(prompt.ids, model.newCache()).at(-1);
      assert.ok(logits !== undefined && logits.length === prompt.logits.length);
      const worst = logits.reduce((most, value, i) => Math.max(most, Math.abs(value - (prompt.logits[i] ?? NaN))), 0);
      assert.ok(worst <= TOLERANCE, `${prompt.ids.length} tokens: off by ${worst}`);
    }
  });
}

Deno.test("ReferenceModel.greedy() continues from its cache with the recorded tokens", async () => {
  const model = await ReferenceModel.load(`${FIXTURES}mistral-sliding`);
  const expected: Expected = JSON.parse(await Deno.readTextFile(`${FIXTURES}mistral-sliding/expected.json`));
  // From 33 tokens on, 24 more pass the window of 48.
  for (const prompt of expected.prompts.slice(0, 2)) {
    assert.deepEqual(model.greedy(prompt.ids, prompt.greedy.length), prompt.greedy);
  }
});
