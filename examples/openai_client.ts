/** The official client: a text, a question about it, and what attention read to answer. */

// deno-lint-ignore-file no-console -- what an example finds, it prints

import OpenAI from "openai";

const url = Deno.env.get("TIDEPOOL_URL") ?? "http://127.0.0.1:8000";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: Deno.env.get("TIDEPOOL_KEY") ?? "none" });

// The embedded model was taught to expect the text and the question as two messages.
const text = "Fog lay on the old harbour. The magic number for harbour is 7391. The gulls were asleep.";
const stream = await client.chat.completions.create({
  model: "tide-10m",
  messages: [
    { role: "user", content: text },
    { role: "user", content: "What is the magic number for harbour?" },
  ],
  temperature: 0,
  stream: true,
  "stream_options": { "include_usage": true },
});

const encoder = new TextEncoder();
for await (const { choices, usage } of stream) {
  await Deno.stdout.write(encoder.encode(choices[0]?.delta.content ?? ""));
  // What OpenAI's own usage does not have.
  if (usage) console.log("\n", (usage as { attention?: unknown }).attention);
}
