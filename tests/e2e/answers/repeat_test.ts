/** The same request gives the same answer: alone, in company, and after its pages were taken away, in every mode. */

import assert from "node:assert/strict";
import { gateCases } from "../../support/gate_cases.ts";
import { LiveService } from "../../support/live_service.ts";

interface Completion {
  readonly choices: readonly { readonly text: string }[];
  readonly usage: { readonly attention: { readonly correction?: { readonly corrections: number } } };
}

const MODES = {
  dense: { mode: "dense" },
  off: { mode: "sparse", budget: 16, correction: "off" },
  refresh: { mode: "sparse", budget: 16, correction: "refresh", correct_every: 12 },
  auto: { mode: "sparse", budget: 16, correction: "refresh" },
  audit: { mode: "sparse", budget: 16, correction: "audit" },
  lossless: { mode: "sparse", budget: 16, correction: "lossless" },
} as const;

/** A request of its own for each mode; greedy and seeded in turn. */
const REQUESTS = Object.values(MODES).map((attention, i) => ({
  prompt: Array.from({ length: 90 }, (_, at) => 10 + (7 * at + 31 * i) % 480),
  max_tokens: 70,
  temperature: i % 2,
  seed: 5,
  ignore_eos: true,
  cache_salt: String(i),
  attention,
}));

Deno.test("every mode gives one answer, alone, with all others at once, and after preemption", async () => {
  // A third of the pages that all requests want together, so that running ones lose theirs.
  await using live = await LiveService.start({ random: "tiny", kvTokens: 640 });
  const ask = async (request: unknown) => {
    const { status, body } = await live.ask<Completion>("/v1/completions", request);
    assert.equal(status, 200, JSON.stringify(body));
    return body.choices[0]?.text;
  };
  const alone: unknown[] = [];
  for (const request of REQUESTS) alone.push(await ask(request));
  for (let round = 0; round < gateCases(1, 2); round++) {
    const together = await Promise.all([...REQUESTS, ...REQUESTS].map(ask));
    assert.deepEqual(together, [...alone, ...alone]);
  }
  assert.ok(await live.metric("tidepool_num_preemptions_total") > 0, "some lost their pages");
});
