/** The service inside a program of one's own: started, asked, ended. */

// deno-lint-ignore-file no-console -- what an example finds, it prints

import { startService } from "../mod.ts";

const service = await startService({ port: 0, kvTokens: 4096 }, { log: (line) => console.error(line) });
try {
  const model = await service.ready;
  console.log(`${model.id} on ${model.adapter}, contexts up to ${model.contextTokens} tokens`);
  const response = await fetch(`http://127.0.0.1:${service.address.port}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: model.id, prompt: "The sea", "max_tokens": 8, temperature: 0 }),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  const { choices: [choice] } = await response.json();
  console.log(`The sea${choice.text}`);
} finally {
  // Worker processes end with the service.
  await service.close();
}
