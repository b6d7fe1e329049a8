/** Case files with mistakes, and the split of a prompt into text and question. */

import assert from "node:assert/strict";

import { loadTextModel, needleTokens, parseNeedles } from "../../../engine/evaluation/needles.ts";
import { FIXTURES, withChangedFixture } from "../../support/model_directory.ts";

const CASE = { id: "a", "prompt_text": "long", question: "what?", answer: "that" };

Deno.test("parseNeedles() reads one case a line and ignores further fields and empty lines", () => {
  const lines = `${JSON.stringify({ ...CASE, depth: 0.5 })}\n\n  \n${JSON.stringify({ ...CASE, id: "b" })}\n`;
  const fields = { text: "long", question: "what?", answer: "that" };
  assert.deepEqual(parseNeedles(lines), [{ id: "a", ...fields }, { id: "b", ...fields }]);
  assert.deepEqual(parseNeedles(""), []);
});

Deno.test("parseNeedles() names the line and the field that is wrong", () => {
  const cases = [
    ["{", /line 3: it is not JSON$/],
    ["null", /line 3: id must be a string$/],
    ["[]", /line 3: id must be a string$/],
    [JSON.stringify({ ...CASE, answer: 7 }), /line 3: answer must be a string$/],
  ] as const;
  for (const [line, message] of cases) {
    assert.throws(() => parseNeedles(`\n${JSON.stringify(CASE)}\n${line}`), { code: "invalid_text", message });
  }
});

Deno.test("needleTokens() splits the prompt where the question's message begins", async () => {
  const model = await loadTextModel(`${FIXTURES}llama-rope3`);
  const { text, question } = needleTokens(model, { id: "a", text: "A fact.", question: "Which?", answer: "That" });
  const whole = model.tokenizer.decode(Uint32Array.from([...text, ...question]));
  assert.equal(whole, "<|bos|><|user|>\nA fact.<|end|>\n<|user|>\nWhich?<|end|>\n<|assistant|>\n");
  assert.equal(model.tokenizer.decode(text), "<|bos|><|user|>\nA fact.<|end|>\n");
});

Deno.test("loadTextModel() refuses a model without a chat template", async () => {
  await withChangedFixture("llama", { "tokenizer_config.json": {} }, async (directory) => {
    await assert.rejects(loadTextModel(directory), { code: "unsupported_model", message: /has no chat template$/ });
  });
});
