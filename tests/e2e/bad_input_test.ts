/** What clients get wrong: each a clear refusal in the one shape, and nothing is lost by it. */

import assert from "node:assert/strict";

import type { ErrorBody } from "../../router/errors.ts";
import { LiveService } from "../support/live_service.ts";

/** Smaller than the model's own 32,768: the pool is the bound. */
const CONTEXT = 512;

const BODY_BYTES = 100_000;

/** A row: what is sent where, and what must come back. */
interface Refusal {
  readonly what: string;
  readonly path?: string;
  readonly init?: RequestInit;
  /** Text or bytes as they are; anything else as JSON. */
  readonly body: unknown;
  /** @default 400 */
  readonly status?: number;
  readonly message: RegExp;
  readonly param?: string;
}

const CHAT = "/v1/chat/completions";
const COMPLETIONS = "/v1/completions";
const messages = [{ role: "user", content: "Hi" }];
const chat = (fields: object) => ({ path: CHAT, body: { messages, ...fields } });

const TOOL = { type: "function", function: { name: "weather" } };
const named = (name: string) => ({ type: "function", function: { name } });

const REFUSALS: readonly Refusal[] = [
  { what: "not JSON", body: "{prompt: 1}", message: /not JSON \(at position 1\)/ },
  { what: "cut off", body: '{"prompt": "a', message: /not JSON/ },
  { what: "no body", body: "", message: /it is empty/ },
  { what: "no object", body: "[1, 2]", message: /expected a JSON object/ },
  { what: "not UTF-8", body: Uint8Array.of(0x7b, 0xff, 0x7d), message: /not valid UTF-8/ },
  { what: "nested too deeply", body: "[".repeat(50_000), message: /more than 64 levels deep/ },
  {
    what: "a form",
    body: "prompt=a",
    init: { headers: { "content-type": "application/x-www-form-urlencoded" } },
    message: /not JSON/,
  },
  { what: "no prompt", body: {}, message: /prompt/, param: "prompt" },
  { what: "a prompt that is a number", body: { prompt: 5 }, message: /expected a string/, param: "prompt" },
  {
    what: "a token that does not exist",
    body: { prompt: [4096] },
    message: /4096.*vocabulary of 4096/,
    param: "prompt",
  },
  { what: "a negative token", body: { prompt: [-1] }, message: /token ids/, param: "prompt" },
  { what: "no messages", path: CHAT, body: {}, message: /messages/, param: "messages" },
  { what: "empty messages", ...chat({ messages: [] }), message: /at least 1/, param: "messages" },
  { what: "messages that are text", ...chat({ messages: "Hi" }), message: /array/, param: "messages" },
  { what: "an unknown role", ...chat({ messages: [{ role: "king", content: "" }] }), message: /role/ },
  { what: "a message without content", ...chat({ messages: [{ role: "user" }] }), message: /content/ },
  { what: "an image", ...chat({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }), message: /text/ },
  { what: "text for a number", ...chat({ temperature: "hot" }), message: /number/, param: "temperature" },
  { what: "a negative temperature", ...chat({ temperature: -1 }), message: /at least 0, -1/, param: "temperature" },
  { what: "a huge temperature", ...chat({ temperature: 1e300 }), message: /at most 2/, param: "temperature" },
  { what: "no top_p", ...chat({ top_p: 0 }), message: /top_p/, param: "top_p" },
  { what: "negative max_tokens", ...chat({ max_tokens: -5 }), message: /at least 1, -5/, param: "max_tokens" },
  { what: "half a token", ...chat({ max_tokens: 1.5 }), message: /integer/, param: "max_tokens" },
  { what: "max_tokens beyond all integers", ...chat({ max_tokens: 1e308 }), message: /1e\+308/, param: "max_tokens" },
  { what: "a bias out of range", ...chat({ logit_bias: { 5: 1000 } }), message: /-100 to 100/, param: "logit_bias" },
  { what: "a bias for no token", ...chat({ logit_bias: { 99999: 1 } }), message: /99999.*4096/, param: "logit_bias" },
  { what: "65 stop strings", ...chat({ stop: Array(65).fill("a") }), message: /64/, param: "stop" },
  { what: "no choice", ...chat({ n: 0 }), message: /n: /, param: "n" },
  {
    what: "a budget of nothing",
    ...chat({ attention: { budget: 0 } }),
    message: /at least/,
    param: "attention.budget",
  },
  {
    what: "a budget beyond the model",
    ...chat({ attention: { mode: "sparse", budget: 32_769 } }),
    message: /32769 .*32768/,
    param: "attention.budget",
  },
  { what: "an unknown mode", ...chat({ attention: { mode: "magic" } }), message: /"dense"/, param: "attention.mode" },
  { what: "an endless schema", ...chat({ guided_json: { $ref: "#" } }), message: /at #: no value of finite size/ },
  {
    what: "a schema that contradicts itself",
    ...chat({ json_schema: { type: "integer", minimum: 5, maximum: 3 } }),
    message: /at #: minimum 5 exceeds maximum 3/,
    param: "json_schema",
  },
  {
    what: "a schema of too many",
    ...chat({ guided_json: { anyOf: Array.from({ length: 5001 }, () => ({})) } }),
    message: /more than 5000 schemas/,
    param: "guided_json",
  },
  { what: "an unknown format", ...chat({ response_format: { type: "xml" } }), message: /"xml" given/ },
  { what: "a grammar without a root", ...chat({ grammar: 'a ::= "b"' }), message: /root/, param: "grammar" },
  {
    what: "a tool that is not there",
    ...chat({ tools: [TOOL], tool_choice: named("x") }),
    message: /"x" is not among/,
  },
  {
    what: "a tool result without a call",
    ...chat({ messages: [...messages, { role: "tool", tool_call_id: "c", content: "" }] }),
    message: /no call "c" comes before/,
    param: "messages[1].tool_call_id",
  },
  {
    what: "a result without a call, of Responses",
    path: "/v1/responses",
    body: { input: [{ type: "function_call_output", call_id: "c", output: "" }] },
    message: /no call "c"/,
  },
  {
    what: "an answer longer than the context",
    body: { prompt: [10, 20, 30], max_tokens: CONTEXT },
    message: /3 prompt tokens and max_tokens 512 exceed the context of 512/,
    param: "prompt",
  },
  {
    what: "a prompt longer than the KV pool",
    body: { prompt: Array(600).fill(10), max_tokens: 1 },
    message: /600 prompt tokens and max_tokens 1 exceed the context of 512/,
  },
  {
    what: "a chat longer than the KV pool",
    ...chat({ messages: [{ role: "user", content: "sea ".repeat(700) }], stream: true }),
    message: /\d+ prompt tokens and an answer exceed the context of 512/,
    param: "messages",
  },
  {
    what: "an unknown model",
    ...chat({ model: "gpt-9" }),
    status: 404,
    message: /"gpt-9".*"tide-10m"/,
    param: "model",
  },
  { what: "a body over the cap", body: { prompt: "a".repeat(BODY_BYTES) }, status: 413, message: /100000 bytes/ },
  {
    what: "a body over the cap that does not say so",
    body: new Blob([new Uint8Array(BODY_BYTES + 1)]).stream(),
    status: 413,
    message: /100000 bytes/,
  },
  { what: "an unknown path", path: "/v1/embeddings", body: {}, status: 404, message: /\/v1\/embeddings/ },
  {
    what: "a wrong method",
    path: CHAT,
    init: { method: "DELETE" },
    body: "",
    status: 405,
    message: /only POST/,
  },
  { what: "tokens to read that do not exist", path: "/detokenize", body: { tokens: [5000] }, message: /vocabulary/ },
  { what: "nothing to tokenize", path: "/tokenize", body: {}, message: /0 given/ },
];

Deno.test("bad input is refused in the one shape, and the service goes on", async (t) => {
  await using live = await LiveService.start({ kvTokens: CONTEXT, bodyBytes: BODY_BYTES });
  const good = { prompt: [0, 10, 20, 30], "max_tokens": 4, temperature: 0, "ignore_eos": true };
  const before = await live.ask<{ choices: unknown }>(COMPLETIONS, good);

  for (const { what, path = COMPLETIONS, init, body, status = 400, message, param } of REFUSALS) {
    await t.step(what, async () => {
      const answer = await live.ask<ErrorBody>(path, body, init);
      const { error } = answer.body;
      assert.equal(answer.status, status, JSON.stringify(error));
      assert.deepEqual(Object.keys(error).sort(), ["code", "message", "param", "type"]);
      assert.equal(error.type, "invalid_request_error");
      assert.match(error.message, message);
      assert.match(error.message, /^Cannot [^\n]{1,500}$/);
      if (param !== undefined) assert.equal(error.param, param);
      assert.ok(answer.headers.get("x-request-id"));
    });
  }

  await t.step("but JSON is JSON, whatever the header calls it: curl sends -d as a form", async () => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    assert.deepEqual(
      (await live.ask<typeof before.body>(COMPLETIONS, good, { headers })).body.choices,
      before.body.choices,
    );
  });

  await t.step("many at once, among good ones", async () => {
    const answers = await Promise.all(
      REFUSALS.filter(({ body }) => !(body instanceof ReadableStream)).flatMap((
        { path = COMPLETIONS, body, init },
        i,
      ) => [
        live.ask<unknown>(path, body, init),
        ...(i % 10 === 0 ? [live.ask<{ choices: unknown }>(COMPLETIONS, good)] : []),
      ]),
    );
    const served = answers.filter(({ status }) => status === 200);
    assert.equal(served.length, Math.ceil((REFUSALS.length - 1) / 10));
    for (const { body } of served) assert.deepEqual((body as typeof before.body).choices, before.body.choices);
  });

  await t.step("nothing is lost: no page, no process, no internal error in the log", async () => {
    await live.idle(30_000);
    assert.equal(await live.metric("tidepool_group_epoch"), 1);
    assert.deepEqual(live.lines.filter((line) => /lost|refused step|internal_error/.test(line)), []);
    const whole = await live.ask<{ choices: unknown }>(COMPLETIONS, good);
    assert.deepEqual(whole.body.choices, before.body.choices);
    const full = { prompt: Array(CONTEXT - 8).fill(10), "max_tokens": 8, "ignore_eos": true };
    assert.equal((await live.ask(COMPLETIONS, full)).status, 200, "the whole context can be used");
  });
});
