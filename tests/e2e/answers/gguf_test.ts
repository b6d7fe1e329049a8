/** A service of a GGUF file, and one of weights that it quantises itself. */

import assert from "node:assert/strict";

import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { LiveService } from "../../support/live_service.ts";
import { FIXTURES, readFixture, TIDE } from "../../support/model_directory.ts";

interface Expected {
  readonly files: Readonly<Record<string, { readonly prompts: readonly { ids: number[]; greedy: number[] }[] }>>;
}

Deno.test("a GGUF file of mixed quantised types is served under its name, with the recorded tokens", async () => {
  const { files } = await readFixture<Expected>("gguf/expected.json");
  const { ids = [], greedy = [] } = files["tiny-llama-k-Q4_K_M.gguf"]?.prompts[1] ?? {};
  await using live = await LiveService.start({
    model: `${FIXTURES}gguf/tiny-llama-k-Q4_K_M.gguf`,
    kvTokens: 256,
    gpu: "deno",
  });
  assert.equal(live.model.id, "tiny-llama-k-Q4_K_M");
  const answer = await live.client().completions.create({
    model: live.model.id,
    prompt: ids,
    "max_tokens": greedy.length,
    temperature: 0,
  });
  const tokenizer = await Tokenizer.load(`${FIXTURES}gguf/tiny-llama-k-Q4_K_M.gguf`);
  assert.equal(answer.choices[0]?.text, tokenizer.decode(greedy, { skipSpecialTokens: true }));
});

Deno.test("a service that quantises its weights to four bits still answers", async () => {
  await using live = await LiveService.start({ model: TIDE, quantize: "q4", kvTokens: 512, gpu: "deno" });
  const answer = await live.client().chat.completions.create({
    model: live.model.id,
    messages: [{ role: "user", content: "What is the capital of France?" }],
    "max_tokens": 8,
    temperature: 0,
  });
  assert.ok((answer.choices[0]?.message.content ?? "").length > 0);
});
