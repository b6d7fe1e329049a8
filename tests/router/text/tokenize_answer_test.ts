/** Long answers of `/tokenize`, written block by block as they are read, and what is longer than the service takes. */

import assert from "node:assert/strict";

import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { tokenizeResponse } from "../../../router/text/tokenize_answer.ts";
import { MODEL_DIRECTORY, TestService } from "../../support/test_service.ts";

const tokenizer = await Tokenizer.load(MODEL_DIRECTORY);

Deno.test("POST /tokenize gives the same JSON in one block and in many", async () => {
  using service = await TestService.open();
  const text = "The sea, 漢字 and é! ".repeat(1500);
  const ids = [...tokenizer.encode(text)];
  assert.ok(ids.length > 3 * 4096, `${ids.length} tokens are too few for three blocks`);
  const strings = ids.map((id) => tokenizer.tokenText(id));

  const vllm = await service.post("/tokenize", { prompt: text, "return_token_strs": true });
  assert.equal(vllm.headers.get("content-type"), "application/json");
  const body = await vllm.json();
  assert.deepEqual(body.tokens.slice(-ids.length), ids);
  assert.deepEqual(body.token_strs.slice(-ids.length), strings);
  assert.deepEqual([body.count, body.max_model_len], [body.tokens.length, 4096]);

  const pieces = await (await service.post("/tokenize", { content: text, "with_pieces": true })).json();
  assert.deepEqual(pieces.tokens.map(({ id }: { id: number }) => id), ids);
  // Parts of a character are bytes, all else is text.
  const isPart = (id: number) => tokenizer.tokenText(id).includes("\ufffd");
  const expected = ids.map((id) => isPart(id) ? [...tokenizer.tokenBytes(id)] : tokenizer.tokenText(id));
  assert.deepEqual(pieces.tokens.map(({ piece }: { piece: unknown }) => piece), expected);
  assert.ok(expected.some((piece) => typeof piece !== "string"));
});

Deno.test("tokenizeResponse() writes no more than is read, and nothing for a reader that has left", async () => {
  let written = 0;
  const counted = { tokenBytes: (id: number) => (written++, Uint8Array.of(97 + id % 26)) };
  // Each id once: nothing is remembered from earlier blocks.
  const tokens = Uint32Array.from({ length: 100_000 }, (_, id) => id);
  const response = tokenizeResponse({ shape: "llama.cpp", tokens, withPieces: true, contextTokens: 1 }, counted);
  const reader = response.body?.getReader() ?? assert.fail("no body");
  await reader.read();
  await reader.read();
  assert.ok(written <= 2 * 4096, `${written} tokens written after two reads`);
  await reader.cancel();
  const before = written;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(written, before);
});

Deno.test("POST /tokenize and /detokenize refuse what is longer than any context", async () => {
  using service = await TestService.open();
  const long = "a".repeat((8 << 20) + 1);
  for (
    const [path, body, param, message] of [
      ["/tokenize", { prompt: long }, "prompt", /at most 8388608 characters are taken, 8388609 given$/],
      ["/tokenize", { content: long }, "content", /at most 8388608 characters are taken, 8388609 given$/],
      ["/tokenize", { messages: [{ role: "user", content: long }] }, "messages", /at most 8388608 characters/],
      [
        "/detokenize",
        { tokens: new Array((4 << 20) + 1).fill(5) },
        "tokens",
        /at most 4194304 tokens .* 4194305 given$/,
      ],
    ] as const
  ) {
    const response = await service.post(path, body);
    const { error } = await response.json();
    assert.deepEqual([response.status, error.param], [400, param], error.message);
    assert.match(error.message, message);
  }
});
