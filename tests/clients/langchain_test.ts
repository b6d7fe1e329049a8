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
