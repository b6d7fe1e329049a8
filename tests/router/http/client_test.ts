/** The official client against a real socket: what it needs is what most of the world will send. */

import assert from "node:assert/strict";
import OpenAI, { APIError } from "openai";

import { AccessControl } from "../../../router/access/access_control.ts";
import { AllowedHosts } from "../../../router/access/allowed_hosts.ts";
import { AllowedOrigins } from "../../../router/access/allowed_origins.ts";
import { ClientQuota } from "../../../router/access/client_quota.ts";
import { RequestError } from "../../../router/errors.ts";
import { HttpServer } from "../../../router/server/http_server.ts";
import { TestService, tokensOf } from "../../support/test_service.ts";

const HELLO = { model: "org/tide", messages: [{ role: "user" as const, content: "Hi" }] };

/** Serves on a port of the system's choosing for as long as the test runs. */
async function withClient(test: (client: OpenAI, service: TestService) => Promise<void>): Promise<void> {
  using service = await TestService.open({ limits: { bodyBytes: 100_000 } });
  const server = await HttpServer.listen({ host: "127.0.0.1", port: 0, maxConnections: 100, tls: undefined });
  const onError = (error: unknown) => void service.internalErrors.push(error);
  const access = new AccessControl((request) => service.app.fetch(request), {
    hosts: new AllowedHosts("127.0.0.1", []),
    origins: new AllowedOrigins([]),
    keys: undefined,
    quota: new ClientQuota(undefined),
    onAnswered: () => {},
    onInternalError: onError,
  });
  server.serve({ answer: (request, peer) => access.answer(request, peer), onRefused: () => {}, onError });
  try {
    const { port } = server.address;
    await test(new OpenAI({ apiKey: "none", baseURL: `http://127.0.0.1:${port}/v1`, maxRetries: 0 }), service);
  } finally {
    await server.close();
  }
}

Deno.test("openai: chat, whole", () =>
  withClient(async (client) => {
    const answer = await client.chat.completions.create({ ...HELLO, seed: 1 });
    assert.equal(answer.choices[0]?.message.content, "Hello, wide world!");
    assert.equal(answer.choices[0]?.finish_reason, "stop");
    assert.equal(answer.usage?.prompt_tokens_details?.cached_tokens, 2);
  }));

Deno.test("openai: chat, streamed, with usage", () =>
  withClient(async (client, service) => {
    service.say("Hello, wide world!", { prefill: [1, 2] });
    const stream = await client.chat.completions.create({
      ...HELLO,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts: string[] = [];
    let total: number | undefined;
    for await (const chunk of stream) {
      texts.push(chunk.choices[0]?.delta.content ?? "");
      total ??= chunk.usage?.total_tokens;
    }
    assert.equal(texts.join(""), "Hello, wide world!");
    const request = service.generator.requests[0];
    assert.equal(total, (request?.promptTokens.length ?? 0) + service.generator.script.tokens.length);
  }));

Deno.test("openai: the stream helper puts the answer together", () =>
  withClient(async (client) => {
    const final = await client.chat.completions.stream({ ...HELLO, stream: true }).finalChatCompletion();
    assert.equal(final.choices[0]?.message.content, "Hello, wide world!");
    assert.equal(final.choices[0]?.finish_reason, "stop");
  }));

Deno.test("openai: completions, whole and streamed", () =>
  withClient(async (client, service) => {
    const prompt = tokensOf(service.tokenizer, "Once");
    const whole = await client.completions.create({ model: "org/tide", prompt });
    assert.equal(whole.choices[0]?.text, "Hello, wide world!");
    const texts: string[] = [];
    for await (const chunk of await client.completions.create({ model: "org/tide", prompt: "a", stream: true })) {
      texts.push(chunk.choices[0]?.text ?? "");
    }
    assert.equal(texts.join(""), "Hello, wide world!");
  }));

Deno.test("openai: models, listed and retrieved with a slash in the name", () =>
  withClient(async (client) => {
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["org/tide"]);
    assert.equal((await client.models.retrieve("org/tide")).id, "org/tide");
  }));

Deno.test("openai: refusals become its own errors, with message, param, code and request id", () =>
  withClient(async (client, service) => {
    const refused = (promise: Promise<unknown>) =>
      promise.then(() => assert.fail("was accepted"), (error: unknown) => {
        assert.ok(error instanceof APIError, String(error));
        assert.ok(error.requestID);
        return error;
      });
    const range = await refused(client.chat.completions.create({ ...HELLO, temperature: 9 }));
    assert.ok(range instanceof OpenAI.BadRequestError);
    assert.equal(range.param, "temperature");
    assert.match(range.message, /at most 2, 9 given/);
    const long = await refused(client.chat.completions.create({ ...HELLO, max_tokens: 9999 }));
    assert.equal(long.code, "context_length_exceeded");
    const model = await refused(client.models.retrieve("nobody"));
    assert.ok(model instanceof OpenAI.NotFoundError);
    const large = await refused(client.completions.create({ model: "org/tide", prompt: "x".repeat(200_000) }));
    assert.equal(large.status, 413);
    service.say("x", { refuse: { call: 0, error: new RequestError("queue_full", "Cannot queue: 64 wait already") } });
    const busy = await refused(client.chat.completions.create({ ...HELLO, stream: true }));
    assert.ok(busy instanceof OpenAI.RateLimitError);
    assert.equal(busy.headers?.get("retry-after"), "5");
  }));

Deno.test("openai: breaking out of a stream, and aborting a call, free the generation", () =>
  withClient(async (client, service) => {
    service.say("one two three", { stallAfter: 2 });
    for await (const _ of await client.chat.completions.create({ ...HELLO, stream: true })) break;
    await service.until(() => service.generator.generations.length === 1 && service.generator.live === 0);
    const controller = new AbortController();
    const call = client.chat.completions.create(HELLO, { signal: controller.signal });
    await service.until(() => service.generator.live === 1);
    controller.abort();
    await assert.rejects(call, OpenAI.APIUserAbortError);
    await service.until(() => service.generator.live === 0);
    await service.until(() => service.observer.outcomes.length === 2);
    assert.deepEqual(service.observer.outcomes.map((outcome) => outcome.kind), ["disconnected", "disconnected"]);
  }));

Deno.test("openai: a client that leaves during prefill frees the generation", () =>
  withClient(async (client, service) => {
    service.say("one", { stallAfter: 0 });
    const controller = new AbortController();
    const stream = await client.chat.completions.create({ ...HELLO, stream: true }, { signal: controller.signal });
    assert.equal(service.generator.live, 1);
    controller.abort();
    await service.until(() => service.generator.live === 0);
    stream.controller.abort();
    assert.deepEqual(service.observer.outcomes, [{ kind: "disconnected", phase: "prefill" }]);
  }));

Deno.test("openai: a failure after the first byte is thrown with our code", () =>
  withClient(async (client, service) => {
    const error = new RequestError("worker_lost", "Worker 0 was lost while decoding");
    service.say("one two three", { failAfter: { tokens: 2, error } });
    const texts: string[] = [];
    const stream = await client.chat.completions.create({ ...HELLO, stream: true });
    await assert.rejects(async () => {
      for await (const chunk of stream) texts.push(chunk.choices[0]?.delta.content ?? "");
    }, (thrown: unknown) => thrown instanceof APIError && thrown.code === "worker_lost");
    assert.ok(texts.join("").startsWith("one"));
  }));

Deno.test("a client that hangs up in the middle of its body has left, and was refused nothing", () =>
  withClient(async (client, service) => {
    const { hostname, port } = new URL(client.baseURL);
    const conn = await Deno.connect({ hostname, port: Number(port) });
    const head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    await conn.write(new TextEncoder().encode(`${head}{"model":`));
    await service.until(() => service.observer.moments.length === 1);
    conn.close();
    await service.until(() => service.observer.outcomes.length === 1);
    assert.deepEqual(service.observer.outcomes, [{ kind: "disconnected", phase: "reading" }]);
    // The HTTP adapter looks after the unread rest of the body two turns later.
    await new Promise((resolve) => setTimeout(resolve, 50));
  }));
