/** Text completions without sockets: the forms of a prompt, several choices, refusals. */

import assert from "node:assert/strict";

import { RequestError } from "../../../router/errors.ts";
import { TestService, tokensOf } from "../../support/test_service.ts";

Deno.test("POST /v1/completions takes text, token ids, and several of either", async () => {
  using service = await TestService.open();
  const text = "Call me Ishmael";
  // A text begins as the model's texts did when it was trained; token ids are taken as they are.
  const ids = [0, ...tokensOf(service.tokenizer, text)];
  for (const [prompt, choices] of [[text, 1], [ids, 1], [[text, text], 2], [[ids, ids, ids], 3]] as const) {
    const first = service.generator.requests.length;
    const body = await (await service.post("/v1/completions", { prompt })).json();
    assert.equal(body.object, "text_completion");
    assert.deepEqual(body.choices.map((choice: { index: number }) => choice.index), [...Array(choices).keys()]);
    assert.equal(body.choices[choices - 1].text, "Hello, wide world!");
    const requests = service.generator.requests.slice(first);
    assert.deepEqual(requests.map((request) => [...request.promptTokens]), Array(choices).fill(ids));
    assert.equal(requests[0]?.maxTokens, 16);
    assert.equal(body.usage.prompt_tokens, ids.length * choices);
  }
});

Deno.test("n answers to each prompt have indices in order, seeds of their own, and pay for the prompt once", async () => {
  using service = await TestService.open();
  const body = await (await service.post("/v1/completions", { prompt: ["a", "b"], n: 2, seed: 2 ** 32 - 1 })).json();
  assert.deepEqual(body.choices.map((choice: { index: number }) => choice.index), [0, 1, 2, 3]);
  const { requests } = service.generator;
  assert.deepEqual(requests.map((request) => request.sampling.seed), [2 ** 32 - 1, 0, 2 ** 32 - 1, 0]);
  assert.equal(new Set(requests.map((request) => request.id)).size, 4);
  assert.equal(body.usage.prompt_tokens, 4);
  assert.equal(body.usage.completion_tokens, 4 * service.generator.script.tokens.length);
});

Deno.test("choices of a stream interleave by index, and each is whole", async () => {
  using service = await TestService.open();
  const response = await service.post("/v1/completions", { prompt: ["a", "b"], stream: true });
  const events = (await response.text()).split("\n\n").filter((event) => event.startsWith("data: {"));
  const choices = events.map((event) => JSON.parse(event.slice(6)).choices[0]);
  for (const index of [0, 1]) {
    const own = choices.filter((choice) => choice.index === index);
    assert.equal(own.map((choice) => choice.text).join(""), "Hello, wide world!");
    assert.deepEqual(own.map((choice) => choice.finish_reason).filter(Boolean), ["stop"]);
  }
  assert.notEqual(choices.findIndex((choice) => choice.index === 1), choices.length / 2, "not one after the other");
});

Deno.test("echo puts the prompt before the answer, whole and streamed", async () => {
  using service = await TestService.open();
  const ids = tokensOf(service.tokenizer, "Once ");
  const whole = await (await service.post("/v1/completions", { prompt: ids, echo: true })).json();
  assert.equal(whole.choices[0].text, "Once Hello, wide world!");
  const stream = await (await service.post("/v1/completions", { prompt: "Once ", echo: true, stream: true })).text();
  assert.match(stream, /"text":"Once "/);
});

Deno.test("log-probabilities of a completion: tokens, offsets, the drawn one among the best", async () => {
  using service = await TestService.open();
  const body = await (await service.post("/v1/completions", { prompt: "a", logprobs: 1 })).json();
  const { tokens, token_logprobs: own, top_logprobs: top, text_offset: offsets } = body.choices[0].logprobs;
  assert.equal(tokens.join(""), body.choices[0].text);
  assert.deepEqual(own, tokens.map(() => -0.25));
  assert.equal(top[0][tokens[0]], -0.25);
  assert.deepEqual(offsets.slice(0, 2), [0, tokens[0].length]);
});

Deno.test("when one of several prompts is refused, none runs", async () => {
  using service = await TestService.open();
  service.say("x", { refuse: { call: 2, error: new RequestError("queue_full", "Cannot queue") } });
  const response = await service.post("/v1/completions", { prompt: ["a", "b", "c"] });
  assert.equal(response.status, 429);
  assert.equal(service.generator.generations.length, 2);
  assert.equal(service.generator.live, 0);
});

Deno.test("when one of several answers fails, the others are cancelled", async () => {
  using service = await TestService.open();
  const error = new RequestError("worker_lost", "Worker 0 was lost");
  service.say("one two three", { failAfter: { tokens: 1, error } });
  const response = await service.post("/v1/completions", { prompt: ["a", "b"] });
  assert.equal(response.status, 503);
  assert.equal(service.generator.live, 0);
});

const REFUSALS: readonly (readonly [Record<string, unknown>, string, RegExp])[] = [
  [{ prompt: "", add_special_tokens: false }, "prompt", /no tokens/],
  [{ prompt: [] }, "prompt", /an array of 0 given/],
  [{ prompt: {} }, "prompt", /expected a string, an array of token ids/],
  [{ prompt: ["a", 1] }, "prompt", /expected a string/],
  [{ prompt: [-1] }, "prompt", /expected a string/],
  [{ prompt: [8192] }, "prompt", /8192 is outside the vocabulary of 8192/],
  [{ suffix: "end" }, "suffix", /insertion/],
  [{ best_of: 3 }, "best_of", /3 given/],
  [{ echo: true, logprobs: 1 }, "echo", /log-probabilities of the prompt/],
  [{ logprobs: 6 }, "logprobs", /at most 5, 6 given/],
  [{ prompt: Array(100).fill("a"), n: 2 }, "n", /100 prompts × n 2 exceed 128/],
  [{ max_tokens: 4096 }, "prompt", /2 prompt tokens and max_tokens 4096 exceed the context of 4096/],
];

Deno.test("a bad completion request is refused with the field, the bound and the value", async () => {
  using service = await TestService.open();
  for (const [fields, param, message] of REFUSALS) {
    const response = await service.post("/v1/completions", { prompt: "a", ...fields });
    const { error } = await response.json();
    assert.equal(response.status, 400, JSON.stringify({ fields, error }));
    assert.equal(error.param, param, JSON.stringify({ fields, error }));
    assert.match(error.message, message);
  }
});
