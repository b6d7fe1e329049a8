/** Where an answer ends that was asked for without a length. */

import assert from "node:assert/strict";

import { CONTEXT_TOKENS, TestService } from "../../support/test_service.ts";

Deno.test("POST /v1/chat/completions without max_tokens has the model's default, and no more than the context has room for", async () => {
  using service = await TestService.open();
  const tokensOf = async (words: number) => {
    const content = "sea ".repeat(words);
    const response = await service.chat({ messages: [{ role: "user", content }] });
    assert.equal(response.status, 200, JSON.stringify(await response.json()));
    return service.generator.requests.at(-1);
  };
  assert.equal((await tokensOf(10))?.maxTokens, 256);
  const nearlyFull = await tokensOf(CONTEXT_TOKENS - 100);
  const room = CONTEXT_TOKENS - (nearlyFull?.promptTokens.length ?? 0);
  assert.ok(room > 0 && room < 100, String(room));
  assert.equal(nearlyFull?.maxTokens, room);
});
