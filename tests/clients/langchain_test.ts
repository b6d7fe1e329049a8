/** LangChain's OpenAI client, as it is. */

import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import assert from "node:assert/strict";
import { z } from "zod";

import { callText, type Served, serving } from "./served.ts";

function chat({ origin }: Served): ChatOpenAI {
  return new ChatOpenAI({
    model: "org/tide",
    apiKey: "none",
    maxRetries: 0,
    configuration: { baseURL: `${origin}/v1` },
  });
}

Deno.test("langchain: text, after a system message", () =>
  serving(async (served) => {
    const answer = await chat(served).invoke([["system", "Be short"], ["human", "Hi"]]);
    assert.equal(answer.content, "Hello");
    const { tokenUsage } = answer.response_metadata as { readonly tokenUsage?: { readonly completionTokens?: number } };
    assert.ok((tokenUsage?.completionTokens ?? 0) > 0);
  }));

Deno.test("langchain: errors, with status and message", () =>
  serving(async (served) => {
    await assert.rejects(
      chat(served).invoke("Hi", { stop: Array(65).fill("x") }),
      (error: Error & { status?: number }) => error.status === 400 && /stop: expected at most/.test(error.message),
    );
  }));

Deno.test("langchain: schema, by withStructuredOutput()", () =>
  serving(async (served) => {
    served.say('{"city": "Oslo"}');
    const model = chat(served).withStructuredOutput(z.object({ city: z.string() }), { method: "jsonSchema" });
    assert.deepEqual(await model.invoke("A city"), { city: "Oslo" });
    assert.ok(served.service.generator.requests[0]?.grammar !== undefined);
  }));

Deno.test("langchain: stream and tools, by bindTools()", () =>
  serving(async (served) => {
    served.say(callText("weather", { city: "Oslo" }));
    const weather = tool(() => "rain", { name: "weather", description: "x", schema: z.object({ city: z.string() }) });
    const model = chat(served).bindTools([weather]);
    const answer = await model.invoke("Weather in Oslo?");
    assert.deepEqual(answer.tool_calls?.map(({ name, args }) => [name, args]), [["weather", { city: "Oslo" }]]);
    let whole: Awaited<ReturnType<typeof model.invoke>> | undefined;
    for await (const chunk of await model.stream("Weather in Oslo?")) {
      whole = whole === undefined ? chunk : whole.concat(chunk);
    }
    assert.deepEqual(whole?.tool_calls?.map(({ name, args }) => [name, args]), [["weather", { city: "Oslo" }]]);
  }));
