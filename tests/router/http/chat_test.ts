/** Chat completions without sockets: shapes, streams, stops, refusals. */

import assert from "node:assert/strict";

import { RequestError } from "../../../router/errors.ts";
import { TestService } from "../../support/test_service.ts";
import { NO_CORRECTION } from "../../support/generation_request.ts";

/** Ids, times and request ids differ from run to run. */
function steady(text: string): string {
  return text.replace(/chatcmpl-[0-9a-f]{32}/g, "chatcmpl-ID").replace(/"created":\d+/g, '"created":0')
    .replace(/"time_ms":\d+/g, '"time_ms":0');
}

Deno.test("POST /v1/chat/completions answers as OpenAI does, with what attention cost", async () => {
  using service = await TestService.open();
  const response = await service.chat({ attention: { mode: "sparse", budget: 128 }, seed: 7 });
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  assert.match(body.id, /^chatcmpl-[0-9a-f]{32}$/);
  assert.equal(body.object, "chat.completion");
  assert.equal(body.model, "org/tide");
  assert.deepEqual(body.choices, [{
    index: 0,
    message: { role: "assistant", content: "Hello, wide world!", refusal: null },
    logprobs: null,
    finish_reason: "stop",
    stop_reason: null,
  }]);
  const [request] = service.generator.requests;
  const promptTokens = request?.promptTokens.length ?? 0;
  const answerTokens = service.generator.script.tokens.length;
  assert.deepEqual(body.usage, {
    prompt_tokens: promptTokens,
    completion_tokens: answerTokens,
    total_tokens: promptTokens + answerTokens,
    prompt_tokens_details: { cached_tokens: 2 },
    completion_tokens_details: { reasoning_tokens: 0 },
    attention: {
      mode: "sparse",
      budget: 128,
      select_layers: [2, 6],
      context: promptTokens + answerTokens,
      rows_read_per_token: 300,
    },
  });
  assert.deepEqual(request?.attention, { mode: "sparse", budget: 128, heads: "kv_head", correction: NO_CORRECTION });
  assert.equal(request?.sampling.seed, 7);
  assert.equal(request?.maxTokens, 256, "the default is what generation_config.json says");
  assert.deepEqual(request?.stopTokens, [1]);
  assert.equal(
    service.tokenizer.decode(request?.promptTokens ?? []),
    "<|bos|><|user|>\nHi<|end|>\n<|assistant|>\n",
  );
});

Deno.test("a chat stream is the transcript we promise", async (t) => {
  using service = await TestService.open();
  service.say("Wide world", { prefill: [4, 9] });
  const response = await service.chat({
    stream: true,
    stream_options: { include_usage: true },
    logprobs: true,
    top_logprobs: 2,
    return_progress: true,
  });
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assert.equal(response.headers.get("cache-control"), "no-cache");
  assert.equal(response.headers.get("x-accel-buffering"), "no");
  await t.assertSnapshot(steady(await response.text()));
  assert.deepEqual(service.observer.moments, ["received chat", "accepted", "first token", "finished"]);
  assert.equal(service.generator.live, 0);
});

Deno.test("a stream without include_usage says nothing of usage", async () => {
  using service = await TestService.open();
  const text = await (await service.chat({ stream: true })).text();
  assert.ok(!text.includes("usage"));
  assert.ok(text.endsWith("data: [DONE]\n\n"));
});

Deno.test("a stop string ends the answer, is left out, and cancels the generation", async () => {
  using service = await TestService.open();
  service.say("one two three four five");
  const body = await (await service.chat({ stop: ["three", "nine"] })).json();
  assert.equal(body.choices[0].message.content, "one two ");
  assert.equal(body.choices[0].finish_reason, "stop");
  assert.equal(body.choices[0].stop_reason, "three");
  assert.ok(body.usage.completion_tokens < service.generator.script.tokens.length);
  assert.ok(service.generator.generations[0]?.cancelled);
  const kept = await (await service.chat({ stop: "three", include_stop_str_in_output: true })).json();
  assert.equal(kept.choices[0].message.content, "one two three");
});

Deno.test("a listed stop token ends the answer and is named; ignore_eos goes on", async () => {
  using service = await TestService.open();
  const tokens = service.generator.script.tokens;
  const listed = await (await service.chat({ stop_token_ids: [tokens[2]] })).json();
  assert.equal(listed.choices[0].stop_reason, tokens[2]);
  assert.equal(listed.choices[0].message.content, service.tokenizer.decode(tokens.slice(0, 2)));
  const endless = await (await service.chat({ ignore_eos: true, max_tokens: tokens.length * 2 })).json();
  assert.equal(endless.choices[0].message.content, "Hello, wide world!".repeat(2));
  assert.equal(endless.choices[0].finish_reason, "length");
  const special = await (await service.chat({
    ignore_eos: true,
    max_tokens: tokens.length,
    skip_special_tokens: false,
  })).json();
  assert.equal(special.choices[0].message.content, "Hello, wide world!<|end|>");
});

Deno.test("log-probabilities carry bytes, and minus infinity becomes a number", async () => {
  using service = await TestService.open();
  service.say("é");
  const body = await (await service.chat({ logprobs: true, top_logprobs: 2 })).json();
  const content = body.choices[0].logprobs.content;
  assert.deepEqual(content.flatMap((token: { bytes: number[] }) => token.bytes), [0xc3, 0xa9]);
  assert.equal(content[0].logprob, -0.25);
  assert.equal(content[0].top_logprobs[1].logprob, -9999);
});

Deno.test("parts of text, developer messages and continued answers make the prompt", async () => {
  using service = await TestService.open();
  await service.post("/v1/chat/completions", {
    messages: [
      { role: "developer", content: "Be brief" },
      { role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
      { role: "assistant", content: "So" },
    ],
    continue_final_message: true,
    max_completion_tokens: 3,
    max_tokens: 9,
  });
  const [request] = service.generator.requests;
  assert.equal(
    service.tokenizer.decode(request?.promptTokens ?? []),
    "<|bos|><|system|>\nBe brief<|end|>\n<|user|>\na\nb<|end|>\n<|assistant|>\nSo",
  );
  assert.equal(request?.maxTokens, 3);
});

Deno.test("null counts as absent, and unknown fields are ignored", async () => {
  using service = await TestService.open();
  const optional = [
    "model stream stream_options max_tokens max_completion_tokens temperature top_p top_k min_p repetition_penalty",
    "presence_penalty frequency_penalty logit_bias seed n stop stop_token_ids include_stop_str_in_output min_tokens",
    "ignore_eos skip_special_tokens cache_salt return_progress attention add_generation_prompt continue_final_message",
    "chat_template_kwargs tools functions response_format modalities audio logprobs top_logprobs",
  ].join(" ").split(" ");
  const nulls = Object.fromEntries(optional.map((field) => [field, null]));
  const response = await service.chat({
    ...nulls,
    tools: [],
    response_format: { type: "text" },
    store: true,
    metadata: { a: 1 },
    service_tier: "auto",
    nonsense: [[]],
  });
  assert.equal(response.status, 200, await response.text());
  const sampling = service.generator.requests[0]?.sampling;
  assert.deepEqual({ ...sampling, seed: 0 }, {
    temperature: 1,
    topP: 1,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    logitBias: [],
    seed: 0,
    minTokens: 0,
    suppressed: [],
    topLogprobs: undefined,
  });
});

const REFUSALS: readonly (readonly [Record<string, unknown>, string, string | null, RegExp])[] = [
  [{ messages: [] }, "messages", null, /messages: expected at least 1 element, an array of 0 given/],
  [{ messages: "Hi" }, "messages", null, /messages: expected an array, "Hi" given/],
  [{ messages: [{ role: "poet", content: "" }] }, "messages[0].role", null, /"assistant".*"poet" given/],
  [{ messages: [{ role: "user" }] }, "messages[0].content", null, /expected a string or text parts/],
  [
    { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
    "messages[0].content[0].type",
    null,
    /expected "text" or "refusal", "image_url" given/,
  ],
  [{ temperature: 3 }, "temperature", null, /temperature: expected at most 2, 3 given/],
  [{ temperature: "hot" }, "temperature", null, /expected a number, "hot" given/],
  [{ top_p: 0 }, "top_p", null, /expected more than 0, 0 given/],
  [{ max_tokens: -5 }, "max_tokens", null, /expected at least 1, -5 given/],
  [{ max_tokens: 1e30 }, "max_tokens", null, /1e\+30 given/],
  [{ max_tokens: 1.5 }, "max_tokens", null, /expected an integer, 1.5 given/],
  [{ stop: Array(65).fill("a") }, "stop", null, /at most 64 elements, an array of 65 given/],
  [{ stop: 7 }, "stop", null, /expected a string or an array, 7 given/],
  [{ logit_bias: { "99999": 1 } }, "logit_bias", null, /token 99999 is outside the vocabulary of 8192/],
  [{ logit_bias: { a: 1 } }, "logit_bias", null, /token ids/],
  [{ top_logprobs: 3 }, "top_logprobs", null, /logprobs must be true/],
  [{ min_tokens: 9, max_tokens: 3 }, "min_tokens", null, /min_tokens 9 exceeds max_tokens 3/],
  [{ model: "gpt-9" }, "model", "model_not_found", /"gpt-9".*"org\/tide"/],
  [{ max_tokens: 5000 }, "messages", "context_length_exceeded", /max_tokens 5000 exceed the context of 4096/],
  [{ tools: [{ type: "function" }] }, "tools[0].function", null, /expected an object, nothing given/],
  [{ tool_choice: "required" }, "tool_choice", null, /no tools are given/],
  [{ response_format: { type: "xml" } }, "response_format.type", null, /Invalid|expected/],
  [{ functions: [{}] }, "functions", "unsupported", /function calls/],
  [{ n: 200 }, "n", null, /at most 128, 200 given/],
  [{ audio: { voice: "x" } }, "audio", "unsupported", /only text/],
  [{ continue_final_message: true }, "continue_final_message", null, /must be the assistant's/],
];

Deno.test("a bad chat request is refused with the field, the bound and the value", async () => {
  using service = await TestService.open();
  for (const [fields, param, code, message] of REFUSALS) {
    const response = await service.chat(fields);
    const { error } = await response.json();
    const shown = JSON.stringify({ fields, error });
    assert.equal(response.status, code === "model_not_found" ? 404 : 400, shown);
    assert.deepEqual([error.type, error.param, error.code], ["invalid_request_error", param, code], shown);
    assert.match(error.message, message);
  }
  assert.equal(service.generator.requests.length, 0);
});

Deno.test("a prompt that fills the context is refused, both numbers named", async () => {
  using service = await TestService.open();
  const long = "word ".repeat(5000);
  const { error } = await (await service.chat({ messages: [{ role: "user", content: long }] })).json();
  assert.equal(error.code, "context_length_exceeded");
  assert.match(error.message, /\d{4,} prompt tokens and an answer exceed the context of 4096/);
});

Deno.test("what the generator refuses is a status, not a broken stream", async () => {
  using service = await TestService.open();
  service.say("x", { refuse: { call: 0, error: new RequestError("queue_full", "Cannot queue: 64 wait already") } });
  const response = await service.chat({ stream: true });
  assert.equal(response.status, 429);
  assert.equal(response.headers.get("retry-after"), "5");
  assert.equal((await response.json()).error.type, "rate_limit_error");
  assert.deepEqual(service.observer.outcomes, [{ kind: "failed", code: "queue_full", status: 429 }]);
});

Deno.test("a failure after the first byte is an event with our code, and no [DONE] follows", async () => {
  using service = await TestService.open();
  const error = new RequestError("worker_lost", "Worker 0 was lost while decoding");
  service.say("one two three four", { failAfter: { tokens: 2, error } });
  const text = await (await service.chat({ stream: true })).text();
  const last = text.trimEnd().split("\n\n").at(-1);
  assert.equal(
    last,
    'data: {"error":{"message":"Worker 0 was lost while decoding","type":"server_error","param":null,"code":"worker_lost"}}',
  );
  assert.deepEqual(service.observer.outcomes, [{ kind: "failed", code: "worker_lost", status: 503 }]);
});

Deno.test("an internal failure is in the log, and its cause is not shown to the client", async () => {
  using service = await TestService.open();
  service.say("x", { failAfter: { tokens: 0, error: new Error("secret path /etc/x") } });
  const response = await service.chat();
  const text = await response.text();
  assert.equal(response.status, 500);
  assert.ok(!text.includes("secret"), text);
  assert.equal(JSON.parse(text).error.code, "internal_error");
  const stream = await (await service.chat({ stream: true })).text();
  assert.ok(!stream.includes("secret") && stream.includes("internal_error"), stream);
  assert.equal(service.internalErrors.length, 2);
});

Deno.test("a client that leaves cancels its generation, streamed or not", async () => {
  using service = await TestService.open({ limits: { keepAliveMs: 10_000 } });
  service.say("one two three", { stallAfter: 2 });
  const stream = await service.chat({ stream: true });
  const reader = stream.body?.getReader();
  for (let frames = 0; frames < 3; frames++) await reader?.read();
  await reader?.cancel();
  assert.equal(service.generator.live, 0);

  const controller = new AbortController();
  const pending = service.chat({}, { signal: controller.signal });
  await service.until(() => service.generator.generations.length === 2);
  controller.abort();
  assert.equal((await pending).status, 499);
  assert.equal(service.generator.live, 0);
  const kinds = service.observer.outcomes.map((outcome) => outcome.kind);
  assert.deepEqual(kinds, ["disconnected", "disconnected"]);
});

Deno.test("a stream that is not read yet can be cancelled", async () => {
  using service = await TestService.open();
  const response = await service.chat({ stream: true });
  await response.body?.cancel();
  assert.equal(service.generator.live, 0);
  assert.deepEqual(service.observer.outcomes, [{ kind: "disconnected", phase: "prefill" }]);
});
