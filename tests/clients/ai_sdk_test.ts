/** The AI SDK with three of its providers, as they are: OpenAI (its default, Responses), OpenAI-compatible, Anthropic. */

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, isStepCount, type LanguageModel, streamText, tool } from "ai";
import assert from "node:assert/strict";
import { z } from "zod";

import { callText, serving } from "./served.ts";

const PROVIDERS: Readonly<Record<string, (origin: string) => LanguageModel>> = {
  "openai": (origin) => createOpenAI({ apiKey: "none", baseURL: `${origin}/v1` })("org/tide"),
  "openai chat": (origin) => createOpenAI({ apiKey: "none", baseURL: `${origin}/v1` }).chat("org/tide"),
  "openai-compatible": (origin) =>
    createOpenAICompatible({
      name: "tidepool",
      baseURL: `${origin}/v1`,
      supportsStructuredOutputs: true,
      includeUsage: true,
    })("org/tide"),
  "anthropic": (origin) => createAnthropic({ apiKey: "none", baseURL: `${origin}/v1` })("org/tide"),
};

for (const [name, modelAt] of Object.entries(PROVIDERS)) {
  Deno.test(`ai, ${name}: text and stream, by generateText and streamText`, () =>
    serving(async ({ origin, say }) => {
      say("Hello, wide world!");
      const model = modelAt(origin);
      const { text, finishReason } = await generateText({ model, prompt: "Hi", maxRetries: 0, maxOutputTokens: 100 });
      assert.deepEqual([text, finishReason], ["Hello, wide world!", "stop"]);
      const stream = streamText({ model, prompt: "Hi", maxRetries: 0, maxOutputTokens: 100 });
      const pieces: string[] = [];
      for await (const piece of stream.textStream) pieces.push(piece);
      assert.equal(pieces.join(""), "Hello, wide world!");
      assert.ok(((await stream.usage).outputTokens ?? 0) > 0);
    }));

  Deno.test(`ai, ${name}: errors, with status and message`, () =>
    serving(async ({ origin }) => {
      // Far beyond the context.
      const asked = generateText({ model: modelAt(origin), prompt: "Hi", maxRetries: 0, maxOutputTokens: 9_999_999 });
      await assert.rejects(
        asked,
        (error) =>
          APICallError.isInstance(error) && error.statusCode === 400 && /exceed the context/.test(error.message),
      );
    }));

  Deno.test(`ai, ${name}: tools, a loop of two steps`, () =>
    serving(async ({ origin, say }) => {
      say(callText("weather", { city: "Oslo" }), "It rains.");
      const cities: string[] = [];
      const weather = tool({
        description: "The weather",
        inputSchema: z.object({ city: z.string() }),
        execute: ({ city }) => {
          cities.push(city);
          return "rain";
        },
      });
      const result = streamText({
        model: modelAt(origin),
        prompt: "Weather in Oslo?",
        tools: { weather },
        stopWhen: isStepCount(3),
        maxRetries: 0,
        maxOutputTokens: 100,
      });
      assert.equal(await result.text, "It rains.");
      assert.deepEqual(cities, ["Oslo"]);
    }));

  Deno.test(`ai, ${name}: schema, by generateObject`, () =>
    serving(async ({ origin, say, service }) => {
      const schema = z.object({ city: z.string() });
      const json = '{"city": "Oslo"}';
      say(name === "anthropic" ? callText("json", { city: "Oslo" }) : json);
      const { object } = await generateObject({
        model: modelAt(origin),
        schema,
        prompt: "A city",
        maxRetries: 0,
        maxOutputTokens: 100,
      });
      assert.deepEqual(object, { city: "Oslo" });
      assert.ok(service.generator.requests[0]?.grammar !== undefined);
    }));
}
