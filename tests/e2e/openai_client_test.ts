/** The official client against the whole running service: every call that most programs make. */

import assert from "node:assert/strict";
import OpenAI, { APIError } from "openai";

import { LiveService } from "../support/live_service.ts";
import { readFixture } from "../support/model_directory.ts";
import type { UsageBody } from "../support/sse_reader.ts";

const MODEL = "tide-10m";
const HELLO = { model: MODEL, messages: [{ role: "user" as const, content: "Hello! Who are you?" }] };

interface Greedy {
  readonly messages: OpenAI.ChatCompletionMessageParam[];
  readonly "prompt_ids": readonly number[];
  readonly answer: string;
  readonly "answer_ids": readonly number[];
}

/** What the client's types do not know. */
type Extended<Usage> = Usage & Pick<UsageBody, "attention">;

/** The error a refused call throws. */
async function refusal(call: Promise<unknown>): Promise<APIError> {
  const [result] = await Promise.allSettled([call]);
  assert.ok(result.status === "rejected" && result.reason instanceof APIError, JSON.stringify(result));
  return result.reason;
}

Deno.test("the official openai client", async (t) => {
  await using live = await LiveService.start({ kvTokens: 4096, bodyBytes: 100_000 });
  const client = live.client();
  const recorded = (await readFixture<Greedy[]>("tide-10m/greedy.json")).toSorted((a, b) =>
    a.prompt_ids.length - b.prompt_ids.length
  );

  await t.step("chat: greedy answers are the recorded ones", async () => {
    await Promise.all(
      recorded.slice(0, 4).map(async ({ messages, answer, prompt_ids: ids, answer_ids: answerIds }) => {
        const chat = await client.chat.completions.create({ model: MODEL, messages, temperature: 0 });
        assert.equal(chat.choices[0]?.message.content, answer);
        assert.equal(chat.choices[0]?.finish_reason, "stop");
        assert.deepEqual([chat.object, chat.model, chat.choices[0]?.message.role], [
          "chat.completion",
          MODEL,
          "assistant",
        ]);
        const usage = chat.usage as Extended<OpenAI.CompletionUsage>;
        assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [ids.length, answerIds.length]);
        assert.equal(usage.total_tokens, ids.length + answerIds.length);
        assert.equal(usage.attention.context, usage.total_tokens - 1);
      }),
    );
  });

  await t.step("chat, streamed: the same text, a role first, one usage at the end", async () => {
    const { messages, answer } = recorded[0] ?? assert.fail();
    const body = { model: MODEL, messages, temperature: 0, "stream_options": { "include_usage": true } };
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) chunks.push(chunk);
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), answer);
    assert.equal(chunks[0]?.choices[0]?.delta.role, "assistant");
    assert.equal(chunks.filter((chunk) => chunk.usage).length, 1);
    assert.deepEqual([chunks.at(-1)?.choices, chunks.at(-2)?.choices[0]?.finish_reason], [[], "stop"]);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);

    const helper = client.chat.completions.stream(body);
    const final = await helper.finalChatCompletion();
    assert.equal(final.choices[0]?.message.content, answer);
    assert.equal(final.usage?.total_tokens, chunks.at(-1)?.usage?.total_tokens);
  });

  await t.step("the same prompt again: its full pages come from the cache", async () => {
    const messages = [{ role: "user" as const, content: "The sea was calm. ".repeat(30) }];
    const ask = async () => (await client.chat.completions.create({ model: MODEL, messages, max_tokens: 1 })).usage;
    const [first, second] = [await ask(), await ask()];
    assert.equal(first?.prompt_tokens_details?.cached_tokens, 0);
    const prompt = second?.prompt_tokens ?? 0;
    assert.equal(second?.prompt_tokens_details?.cached_tokens, Math.floor((prompt - 1) / 64) * 64);
  });

  await t.step("log-probabilities: of the tokens drawn, the best ones beside them", async () => {
    const { messages } = recorded[0] ?? assert.fail();
    const chat = await client.chat.completions.create({
      model: MODEL,
      messages,
      temperature: 0,
      max_tokens: 6,
      logprobs: true,
      top_logprobs: 4,
    });
    const content = chat.choices[0]?.logprobs?.content ?? [];
    assert.equal(content.length, 6);
    assert.equal(content.map(({ token }) => token).join(""), chat.choices[0]?.message.content);
    for (const { token, logprob, bytes, top_logprobs: top } of content) {
      assert.deepEqual([top.length, top[0]?.token, top[0]?.logprob], [4, token, logprob]);
      assert.deepEqual(bytes, [...new TextEncoder().encode(token)]);
      assert.ok(top.every((other, i) => other.logprob <= (top[i - 1]?.logprob ?? 0)));
      assert.ok(top.reduce((sum, other) => sum + Math.exp(other.logprob), 0) < 1 + 1e-6);
    }
  });

  await t.step("max_tokens, stop strings and seed", async () => {
    const text = { model: MODEL, prompt: "It was a dark night and", seed: 11, "max_tokens": 30 };
    const whole = await client.completions.create(text);
    assert.deepEqual((await client.completions.create(text)).choices, whole.choices);
    assert.notEqual((await client.completions.create({ ...text, seed: 12 })).choices[0]?.text, whole.choices[0]?.text);
    const answer = whole.choices[0]?.text ?? "";
    assert.ok((whole.usage?.completion_tokens ?? 99) <= 30 && answer.length > 20);
    const stop = answer.slice(10, 14);
    const stopped = await client.completions.create({ ...text, stop: [stop, "never in there"] });
    assert.equal(stopped.choices[0]?.finish_reason, "stop");
    assert.equal(stopped.choices[0]?.text, answer.slice(0, answer.indexOf(stop)));
    const short = await client.completions.create({ ...text, max_tokens: 3 });
    assert.deepEqual([short.usage?.completion_tokens, short.choices[0]?.finish_reason], [3, "length"]);
    assert.ok(answer.startsWith(short.choices[0]?.text ?? "?"));
  });

  await t.step("completions: text, token ids, several of either, several choices, streamed", async () => {
    const common = { model: MODEL, "max_tokens": 4, temperature: 0 };
    const ids = recorded[1]?.prompt_ids.slice() ?? [];
    const texts = async (prompt: OpenAI.CompletionCreateParams["prompt"], fields = {}) =>
      (await client.completions.create({ ...common, ...fields, prompt })).choices.map(({ text }) => text);
    const [once] = await texts("Once upon a time");
    const [fromIds] = await texts(ids);
    assert.deepEqual(await texts(["Once upon a time", "Once upon a time"]), [once, once]);
    assert.deepEqual(await texts([ids, ids]), [fromIds, fromIds]);
    assert.equal(fromIds, recorded[1]?.answer.slice(0, fromIds?.length));
    const several = await texts("Once", { n: 3, seed: 1, temperature: 1 });
    assert.equal(new Set(several).size, 3);
    assert.deepEqual(await texts("Once", { seed: 2, temperature: 1 }), several.slice(1, 2));
    let streamed = "";
    for await (
      const chunk of await client.completions.create({ ...common, prompt: "Once upon a time", stream: true })
    ) {
      streamed += chunk.choices[0]?.text ?? "";
    }
    assert.equal(streamed, once);
    const echoed = await client.completions.create({
      ...common,
      prompt: "Once upon a time",
      echo: true,
      logprobs: null,
    });
    assert.equal(echoed.choices[0]?.text, `Once upon a time${once}`);
  });

  await t.step("models", async () => {
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, [MODEL]);
    assert.equal((await client.models.retrieve(MODEL)).object, "model");
  });

  await t.step("errors are its own, with field, code and request id", async () => {
    const range = await refusal(client.chat.completions.create({ ...HELLO, temperature: 9 }));
    assert.ok(range instanceof OpenAI.BadRequestError && range.requestID);
    assert.equal(range.param, "temperature");
    const long = await refusal(client.chat.completions.create({ ...HELLO, max_tokens: 9999 }));
    assert.equal(long.code, "context_length_exceeded");
    assert.match(long.message, /\d+ prompt tokens and max_tokens 9999 exceed the context of 4096/);
    assert.ok(await refusal(client.models.retrieve("nobody")) instanceof OpenAI.NotFoundError);
    assert.ok(await refusal(client.chat.completions.create({ ...HELLO, model: "m" })) instanceof OpenAI.NotFoundError);
    const large = client.completions.create({ model: MODEL, prompt: "x".repeat(200_000) });
    assert.equal((await refusal(large)).status, 413);
    const tools = [{ type: "function" as const, function: { name: "f" } }];
    const other = { type: "function" as const, function: { name: "g" } };
    const unknown = await refusal(client.chat.completions.create({ ...HELLO, tools, tool_choice: other }));
    assert.equal(unknown.param, "tool_choice");
  });

  await t.step("leaving a stream, and aborting a call, stop the work", async () => {
    const endless = { model: MODEL, prompt: "And", "max_tokens": 3000, "ignore_eos": true };
    let seen = 0;
    for await (const _ of await client.completions.create({ ...endless, stream: true })) if (++seen === 3) break;
    await live.idle(30_000);
    const stream = client.chat.completions.stream({ ...HELLO, max_tokens: 3000, ...{ ignore_eos: true } });
    await new Promise((resolve) => stream.once("content", resolve));
    stream.abort();
    await assert.rejects(stream.done(), OpenAI.APIUserAbortError);
    await live.idle(30_000);
    const controller = new AbortController();
    const call = client.completions.create(endless, { signal: controller.signal });
    await live.until(async () => (await live.load()).running === 1, 30_000);
    controller.abort();
    await assert.rejects(call, OpenAI.APIUserAbortError);
    await live.idle(30_000);
    await live.until(async () => await live.metric("tidepool_client_disconnects_total") === 3, 30_000);
  });

  await t.step("a failure in mid-stream is an error, not a short answer", async () => {
    const stream = await client.completions.create({
      ...{ model: MODEL, prompt: "And", max_tokens: 3000, ignore_eos: true },
      stream: true,
    });
    let seen = 0;
    const read = async () => {
      for await (const _ of stream) if (++seen === 3) live.service.close();
    };
    const error = await refusal(read());
    assert.equal(error.code, "draining");
    assert.ok(seen >= 3);
  });
});
