/** The official Anthropic client, as it is. */

import Anthropic, { BadRequestError, NotFoundError } from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import assert from "node:assert/strict";
import { z } from "zod";

import { callText, type Served, serving } from "./served.ts";

const MODEL = "org/tide";
const MESSAGES = [{ role: "user" as const, content: "Weather in Oslo?" }];
const TOOLS = [{
  name: "weather",
  description: "The weather",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } }, required: ["city"] },
}];

function client({ origin }: Served): Anthropic {
  return new Anthropic({ apiKey: "none", baseURL: origin, maxRetries: 0 });
}

Deno.test("anthropic: text, with a cached system prompt", () =>
  serving(async (served) => {
    const message = await client(served).messages.create({
      model: MODEL,
      max_tokens: 50,
      system: [{ type: "text", text: "Be short", cache_control: { type: "ephemeral" } }],
      messages: MESSAGES,
    });
    assert.deepEqual(message.content, [{ type: "text", text: "Hello" }]);
    assert.equal(message.stop_reason, "end_turn");
    assert.equal(message.usage.cache_read_input_tokens, 2);
  }));

Deno.test("anthropic: stream and tools, in two steps", () =>
  serving(async (served) => {
    served.say(`Let me see. ${callText("weather", { city: "Oslo" })}`);
    const stream = client(served).messages.stream({ model: MODEL, max_tokens: 99, messages: MESSAGES, tools: TOOLS });
    const message = await stream.finalMessage();
    assert.equal(message.stop_reason, "tool_use");
    const [text, use] = message.content;
    assert.ok(text?.type === "text" && use?.type === "tool_use");
    assert.deepEqual([text.text, use.name, use.input], ["Let me see.", "weather", { city: "Oslo" }]);
    served.say("It rains.");
    const next = await client(served).messages.create({
      model: MODEL,
      max_tokens: 50,
      tools: TOOLS,
      messages: [...MESSAGES, { role: "assistant", content: message.content }, {
        role: "user",
        content: [{ type: "tool_result", tool_use_id: use.id, content: "rain" }],
      }],
    });
    assert.deepEqual(next.content, [{ type: "text", text: "It rains." }]);
  }));

Deno.test("anthropic: schema, by parse()", () =>
  serving(async (served) => {
    served.say('{"city": "Oslo"}');
    const { parsed_output: city } = await client(served).messages.parse({
      model: MODEL,
      max_tokens: 99,
      messages: MESSAGES,
      output_config: { format: zodOutputFormat(z.object({ city: z.string() })) },
    });
    assert.deepEqual(city, { city: "Oslo" });
    assert.equal(served.service.generator.requests[0]?.grammar?.kind, "json");
  }));

Deno.test("anthropic: text, ended by max_tokens and stop sequences", () =>
  serving(async (served) => {
    served.say("one two three four");
    const create = (fields: { max_tokens: number; stop_sequences?: string[] }) =>
      client(served).messages.create({ model: MODEL, messages: MESSAGES, ...fields });
    assert.equal((await create({ max_tokens: 1 })).stop_reason, "max_tokens");
    const stopped = await create({ max_tokens: 50, stop_sequences: ["three"] });
    assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ["stop_sequence", "three"]);
  }));

Deno.test("anthropic: text, whose counted tokens are those of the prompt", () =>
  serving(async (served) => {
    const { input_tokens: counted } = await client(served).messages.countTokens({ model: MODEL, messages: MESSAGES });
    await client(served).messages.create({ model: MODEL, max_tokens: 5, messages: MESSAGES });
    assert.equal(served.service.generator.requests[0]?.promptTokens.length, counted);
  }));

Deno.test("anthropic: errors, in its own form", () =>
  serving(async (served) => {
    const image = { type: "image" as const, source: { type: "url" as const, url: "https://example.org/x.png" } };
    await assert.rejects(
      client(served).messages.create({ model: MODEL, max_tokens: 5, messages: [{ role: "user", content: [image] }] }),
      (error) => error instanceof BadRequestError && /only text/.test(error.message),
    );
    await assert.rejects(
      client(served).messages.create({ model: "other", max_tokens: 5, messages: MESSAGES }),
      (error) => error instanceof NotFoundError && error.type === "not_found_error",
    );
  }));
