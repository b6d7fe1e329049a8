/** One request over two workers, each with a slice of its KV cache, and which positions it read last. */

// deno-lint-ignore-file no-console -- what an example finds, it prints

import { startService } from "../mod.ts";

// With a GPU for each worker, leave `shareGpu` out.
const service = await startService({ port: 0, workers: 2, shareGpu: true, kvTokens: [2048, 1024] });
try {
  const { workers, contextTokens } = await service.ready;
  console.log(`${workers.map(({ kvTokens }) => kvTokens).join(" + ")} tokens: contexts up to ${contextTokens}`);

  const origin = `http://127.0.0.1:${service.address.port}`;
  const filler = "The boats lay still, and the gulls were asleep on the wall. ".repeat(12);
  const response = await fetch(`${origin}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      messages: [
        { role: "user", content: `The magic number for harbour is 7391. ${filler}` },
        { role: "user", content: "What is the magic number for harbour?" },
      ],
      temperature: 0,
      attention: { mode: "sparse", budget: 64 },
    }),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  const { id, choices: [choice], usage } = await response.json();
  console.log(choice.message.content);

  const selection = await fetch(`${origin}/v1/sequences/${id}/selection`);
  if (!selection.ok) throw new Error(`${selection.status}: ${await selection.text()}`);
  for (const { layer, sets: [positions = []] } of (await selection.json()).layers) {
    console.log(
      `layer ${layer} chose ${positions.length} of ${usage.attention.context} positions: ${positions.join(" ")}`,
    );
  }
} finally {
  await service.close();
}
