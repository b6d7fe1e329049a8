/** The AI SDK: a tool that the model calls, its result sent back, and the answer from it in a second step. */

// deno-lint-ignore-file no-console -- what an example finds, it prints

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, tool } from "ai";
import { z } from "zod";

const url = Deno.env.get("TIDEPOOL_URL") ?? "http://127.0.0.1:8000";
const apiKey = Deno.env.get("TIDEPOOL_KEY") ?? "none";
const tidepool = createOpenAICompatible({ name: "tidepool", baseURL: `${url}/v1`, apiKey });

const log = tool({
  description: "Reads the log of a harbour",
  inputSchema: z.object({ place: z.enum(["harbour"]) }),
  execute: ({ place }) => `Fog lay on the old ${place}. The magic number for ${place} is 7391. The gulls were asleep.`,
});

const question = { role: "user" as const, content: "What is the magic number for harbour?" };

const { steps } = await generateText({
  model: tidepool("tide-10m"),
  messages: [question],
  tools: { log },
  stopWhen: isStepCount(2),
  // The embedded model calls no tool by itself, so the first step asks for it; and it expects the question after the text.
  prepareStep: ({ stepNumber, messages }) =>
    stepNumber === 0
      ? { toolChoice: { type: "tool", toolName: "log" } }
      : { toolChoice: "none", messages: [...messages, question] },
  temperature: 0,
  maxOutputTokens: 64,
});

for (const { toolCalls, toolResults, text } of steps) {
  for (const { toolName, input } of toolCalls) console.log("call:", toolName, JSON.stringify(input));
  for (const { output } of toolResults) console.log("result:", JSON.stringify(output));
  if (text !== "") console.log("answer:", text);
}
