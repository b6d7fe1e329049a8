/** The official OpenAI client, as it is: chat and Responses. */

import assert from "node:assert/strict";
import OpenAI, { BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { callText, type Served, serving } from "./served.ts";

const MODEL = "org/tide";
const WEATHER = {
  name: "weather",
  description: "The weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const TOOLS = [{ type: "function" as const, function: WEATHER }];
const MESSAGES = [{ role: "user" as const, content: "Weather in Oslo?" }];

function client({ origin }: Served): OpenAI {
  return new OpenAI({ apiKey: "none", baseURL: `${origin}/v1`, maxRetries: 0 });
}

Deno.test("openai chat: text, of several choices", () =>
  serving(async (served) => {
    const { choices } = await client(served).chat.completions.create({ model: MODEL, messages: MESSAGES, n: 2 });
    assert.deepEqual(choices.map(({ index, message }) => [index, message.content]), [[0, "Hello"], [1, "Hello"]]);
  }));

Deno.test("openai chat: stream, with its usage at the end", () =>
  serving(async (served) => {
    served.say("Hello, wide world!");
    const stream = await client(served).chat.completions.create({
      model: MODEL,
      messages: MESSAGES,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await Array.fromAsync(stream);
    assert.ok(chunks.length > 3);
    assert.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), "Hello, wide world!");
    assert.ok((chunks.at(-1)?.usage?.completion_tokens ?? 0) > 1);
  }));

Deno.test("openai chat: schema, by parse()", () =>
  serving(async (served) => {
    served.say('{"city": "Oslo"}');
    const { choices } = await client(served).chat.completions.parse({
      model: MODEL,
      messages: MESSAGES,
      response_format: zodResponseFormat(z.object({ city: z.string() }), "place"),
    });
    assert.deepEqual(choices[0]?.message.parsed, { city: "Oslo" });
    assert.ok(served.service.generator.requests[0]?.grammar !== undefined);
  }));

Deno.test("openai chat: tools, whole, and their results", () =>
  serving(async (served) => {
    served.say(`Let me see.\n${callText("weather", { city: "Oslo" })}`);
    const { choices } = await client(served).chat.completions.create({
      model: MODEL,
      messages: MESSAGES,
      tools: TOOLS,
    });
    const message = choices[0]?.message;
    assert.equal(choices[0]?.finish_reason, "tool_calls");
    assert.equal(message?.content, "Let me see.");
    const call = message?.tool_calls?.[0];
    assert.ok(call?.type === "function" && message !== undefined);
    assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "Oslo" }]);
    served.say("Rain.");
    const answer = await client(served).chat.completions.create({
      model: MODEL,
      messages: [...MESSAGES, message, { role: "tool", tool_call_id: call.id, content: "rain" }],
      tools: TOOLS,
    });
    assert.equal(answer.choices[0]?.message.content, "Rain.");
  }));

Deno.test("openai chat: tools, streamed by the helper", () =>
  serving(async (served) => {
    served.say([callText("weather", { city: "Oslo" }), callText("weather", { city: "Bergen" })].join("\n"));
    const final = await client(served).chat.completions
      .stream({ model: MODEL, messages: MESSAGES, tools: TOOLS }).finalChatCompletion();
    const calls = final.choices[0]?.message.tool_calls ?? [];
    assert.deepEqual(
      calls.map((call) => call.type === "function" && JSON.parse(call.function.arguments).city),
      ["Oslo", "Bergen"],
    );
    assert.equal(final.choices[0]?.finish_reason, "tool_calls");
  }));

Deno.test("openai chat: tools, runTools() makes two steps", () =>
  serving(async (served) => {
    served.say(callText("weather", { city: "Oslo" }), "It rains.");
    const cities: string[] = [];
    const runner = client(served).chat.completions.runTools({
      model: MODEL,
      messages: MESSAGES,
      tools: [{
        type: "function",
        function: {
          ...WEATHER,
          parse: JSON.parse,
          function: ({ city }: { city: string }) => {
            cities.push(city);
            return "rain";
          },
        },
      }],
    });
    assert.equal(await runner.finalContent(), "It rains.");
    assert.deepEqual(cities, ["Oslo"]);
  }));

Deno.test("openai chat: errors, with the field at fault", () =>
  serving(async (served) => {
    const orphan = { role: "tool" as const, "tool_call_id": "x", content: "rain" };
    await assert.rejects(
      client(served).chat.completions.create({ model: MODEL, messages: [...MESSAGES, orphan] }),
      (error) => error instanceof BadRequestError && error.param === "messages[1].tool_call_id",
    );
  }));

Deno.test("openai Responses: text", () =>
  serving(async (served) => {
    const response = await client(served).responses.create({ model: MODEL, input: "Hi", instructions: "Be short" });
    assert.equal(response.output_text, "Hello");
    assert.equal(response.status, "completed");
    assert.ok((response.usage?.input_tokens ?? 0) > 0);
  }));

Deno.test("openai Responses: text, cut by its length, whole and streamed", () =>
  serving(async (served) => {
    served.say("one two three four");
    const asked = { model: MODEL, input: "Hi", "max_output_tokens": 2, reasoning: { effort: "low" as const } };
    const whole = await client(served).responses.create(asked);
    const streamed = await client(served).responses.stream(asked).finalResponse();
    for (const { status, incomplete_details: details, output, reasoning } of [whole, streamed]) {
      assert.deepEqual([status, details?.reason, reasoning?.effort], ["incomplete", "max_output_tokens", "low"]);
      assert.deepEqual(output.map((item) => item.type === "message" && item.status), ["incomplete"]);
    }
  }));

Deno.test("openai Responses: schema, by parse()", () =>
  serving(async (served) => {
    served.say('{"city": "Oslo"}');
    const { output_parsed: city } = await client(served).responses.parse({
      model: MODEL,
      input: "A city",
      text: { format: zodTextFormat(z.object({ city: z.string() }), "place") },
    });
    assert.deepEqual(city, { city: "Oslo" });
    assert.equal(served.service.generator.requests[0]?.grammar?.kind, "json");
  }));

Deno.test("openai Responses: errors", () =>
  serving(async (served) => {
    const create = (fields: { model?: string; previous_response_id?: string }) =>
      client(served).responses.create({ model: MODEL, input: "Hi", ...fields });
    await assert.rejects(
      create({ previous_response_id: "resp_1" }),
      (error) => error instanceof BadRequestError && /not stored/.test(error.message),
    );
    await assert.rejects(
      create({ model: "other" }),
      (error) => error instanceof NotFoundError && error.code === "model_not_found",
    );
  }));

Deno.test("openai Responses: stream and tools, events in order", () =>
  serving(async (served) => {
    served.say(`Let me see. ${callText("weather", { city: "Oslo" })}`);
    const stream = client(served).responses.stream({
      model: MODEL,
      input: [{ role: "user", content: [{ type: "input_text", text: "Weather?" }] }],
      tools: [{ type: "function", ...WEATHER, strict: false }],
    });
    const types: string[] = [];
    for await (const { type } of stream) if (types.at(-1) !== type) types.push(type);
    assert.deepEqual(types, [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.output_item.added",
      "response.function_call_arguments.delta",
      "response.function_call_arguments.done",
      "response.output_item.done",
      "response.completed",
    ]);
    const { output } = await stream.finalResponse();
    const call = output[1];
    assert.ok(call?.type === "function_call");
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["weather", { city: "Oslo" }]);
    served.say("Rain.");
    const next = await client(served).responses.create({
      model: MODEL,
      input: [{ role: "user", content: "Weather?" }, call, {
        type: "function_call_output",
        call_id: call.call_id,
        output: "rain",
      }],
    });
    assert.equal(next.output_text, "Rain.");
  }));
