/** Fields about tokens: their ids, log-probabilities that look alike, usage in every chunk, how many must come. */

import assert from "node:assert/strict";

import { TestService, tokensOf } from "../../support/test_service.ts";

async function json(response: Response) {
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  return body;
}

async function chunksOf(response: Response) {
  const frames = (await response.text()).split("\n\n").filter((frame) => frame.startsWith("data: {"));
  return frames.map((frame) => JSON.parse(frame.slice("data: ".length)));
}

const COMPLETION = { prompt: "Once", stream: true };

Deno.test("return_token_ids gives the ids of prompt and answer, whole and in pieces", async () => {
  using service = await TestService.open();
  const answer = [...service.generator.script.tokens];
  const prompt = [0, ...tokensOf(service.tokenizer, "Once")];
  const whole = await json(await service.post("/v1/completions", { prompt: "Once", n: 2, return_token_ids: true }));
  assert.deepEqual(whole.prompt_token_ids, prompt);
  for (const choice of whole.choices) assert.deepEqual(choice.token_ids, answer);
  const chat = await json(await service.chat({ return_token_ids: true }));
  assert.deepEqual(chat.choices[0].token_ids, answer);
  assert.deepEqual(chat.prompt_token_ids, [...service.generator.requests.at(-1)?.promptTokens ?? []]);
  const chunks = await chunksOf(await service.post("/v1/completions", { ...COMPLETION, return_token_ids: true }));
  assert.deepEqual(chunks.flatMap(({ choices }) => choices[0]?.token_ids ?? []), answer);
  const streamed = await chunksOf(await service.chat({ stream: true, return_token_ids: true }));
  assert.deepEqual(streamed.flatMap(({ choices }) => choices[0]?.token_ids ?? []), answer);
  assert.equal(streamed.filter((chunk) => "prompt_token_ids" in chunk).length, 1);
  const plain = await json(await service.chat());
  assert.ok(!("token_ids" in plain.choices[0]) && !("prompt_token_ids" in plain));
});

Deno.test("return_token_ids streams a token without a text of its own as an empty text, after an echo too", async () => {
  using service = await TestService.open();
  const text = "日本 \u{1F30A}";
  service.say(text);
  const fields = { ...COMPLETION, echo: true, "return_token_ids": true };
  const chunks = await chunksOf(await service.post("/v1/completions", fields));
  const texts = chunks.map(({ choices }) => choices[0].text);
  assert.equal(texts.join(""), `Once${text}`);
  assert.ok(texts.filter((one) => one === "").length > 2, "some tokens are parts of characters");
  const chat = await chunksOf(await service.chat({ stream: true, return_token_ids: true }));
  assert.equal(chat.filter(({ choices }) => choices[0].delta.role !== undefined).length, 1);
  assert.equal(chat.map(({ choices }) => choices[0].delta.content ?? "").join(""), text);
});

Deno.test("continuous_usage_stats puts the usage so far into every chunk, its absence into none but the last", async () => {
  using service = await TestService.open();
  const streamOptions = { "include_usage": true, "continuous_usage_stats": true };
  const chunks = await chunksOf(
    await service.post("/v1/completions", { ...COMPLETION, stream_options: streamOptions }),
  );
  const counts = chunks.map(({ usage }) => usage.completion_tokens);
  assert.deepEqual(counts, counts.toSorted((a, b) => a - b));
  assert.deepEqual([counts[0], counts.at(-1)], [1, service.generator.script.tokens.length]);
  assert.ok(chunks.every(({ usage }) => usage.prompt_tokens_details.cached_tokens === 2));
  const last = await chunksOf(
    await service.post("/v1/completions", { ...COMPLETION, stream_options: { "include_usage": true } }),
  );
  assert.deepEqual(last.map(({ usage }) => usage !== null), last.map((_, i) => i === last.length - 1));
});

Deno.test("log-probabilities of tokens that look alike do not collide", async () => {
  using service = await TestService.open();
  const { tokenizer } = service;
  // Two parts of characters, neither of which is one: both show as U+FFFD.
  const alike = Array.from({ length: 4000 }, (_, id) => id)
    .find((id) => [id, id + 1].every((one) => tokenizer.tokenText(one) === "\ufffd")) ?? assert.fail("none look alike");
  service.generator.script = { tokens: [alike, 1] };
  const { choices } = await json(await service.post("/v1/completions", { prompt: "a", logprobs: 2 }));
  const [top] = choices[0].logprobs.top_logprobs;
  assert.deepEqual(Object.keys(top).sort(), [`token_id:${alike}`, `token_id:${alike + 1}`].sort());
  const chat = await json(await service.chat({ logprobs: true, top_logprobs: 2 }));
  const [first] = chat.choices[0].logprobs.content;
  assert.deepEqual(first.top_logprobs.map((one: { token_id: number }) => one.token_id), [alike, alike + 1]);
  assert.deepEqual(first.bytes, [...tokenizer.tokenBytes(alike)]);
});

Deno.test("min_tokens suppresses what ends an answer, ignore_eos takes it for a token like others", async () => {
  using service = await TestService.open();
  await json(await service.chat({ min_tokens: 5, max_tokens: 9, stop_token_ids: [7] }));
  const [first] = service.generator.requests;
  assert.equal(first?.sampling.minTokens, 5);
  assert.deepEqual([...first?.sampling.suppressed ?? []].sort(), [1, 7]);
  await json(await service.chat({ ignore_eos: true, max_tokens: 9 }));
  assert.deepEqual(service.generator.requests[1]?.stopTokens, []);
});

Deno.test("a prefix that was reused shows in the usage of every API", async () => {
  using service = await TestService.open();
  const chat = await json(await service.chat());
  assert.equal(chat.usage.prompt_tokens_details.cached_tokens, 2);
  const { usage } = await json(await service.post("/v1/responses", { input: "Hi" }));
  assert.equal(usage.input_tokens_details.cached_tokens, 2);
  const messages = [{ role: "user", content: "Hi" }];
  const message = await json(await service.post("/v1/messages", { model: "org/tide", messages, max_tokens: 9 }));
  assert.equal(message.usage.cache_read_input_tokens, 2);
  assert.equal(message.usage.input_tokens + 2, chat.usage.prompt_tokens);
});

Deno.test("unknown routes name the nearest one, or where all are listed", async () => {
  using service = await TestService.open();
  for (
    const [path, advice] of [
      ["/models", /did you mean \/v1\/models\?/],
      ["/api/chat", /did you mean \/v1\/chat\/completions\?/],
      ["/v1/v1/chat/completions", /did you mean \/v1\/chat\/completions\?/],
      ["/v1/embeddings", /\/openapi\.json lists what is served/],
    ] as const
  ) {
    const response = await service.app.request(path);
    assert.equal(response.status, 404);
    assert.match((await response.json()).error.message, advice, path);
  }
});

Deno.test("Responses that build on stored ones are refused, naming the field", async () => {
  using service = await TestService.open();
  for (const [field, value] of [["previous_response_id", "resp_1"], ["conversation", "conv_1"], ["background", true]]) {
    const response = await service.post("/v1/responses", { input: "Hi", [String(field)]: value });
    const { error } = await response.json();
    assert.deepEqual([response.status, error.param], [400, field], JSON.stringify(error));
  }
  assert.equal(service.generator.requests.length, 0);
});

Deno.test("seed takes every integer of 64 bits, and the same one draws the same", async () => {
  using service = await TestService.open();
  const seedOf = async (text: string) => {
    const body = `{"messages": [{"role": "user", "content": "Hi"}], "seed": ${text}}`;
    const response = await service.post("/v1/chat/completions", body);
    assert.equal(response.status, 200, await response.text());
    return service.generator.requests.at(-1)?.sampling.seed;
  };
  const seeds = ["9223372036854775807", "-9223372036854775808", "5577006791947779410", "8674665223082153551", "-1"];
  const all = async () => {
    const drawn = [];
    for (const seed of seeds) drawn.push(await seedOf(seed));
    return drawn;
  };
  const first = await all();
  assert.deepEqual(await all(), first);
  assert.ok(first.every((seed) => Number.isInteger(seed) && Number(seed) >= 0 && Number(seed) < 2 ** 32));
  for (const seed of [1.5, 1e20, "7"]) assert.equal((await service.chat({ seed })).status, 400, String(seed));
});
