/** Lines that strangers can cause. */

import assert from "node:assert/strict";

import { RateLimitedLog } from "../../workers/rate_limited_log.ts";

Deno.test("RateLimitedLog writes the first line at once, then one for all of a period", async () => {
  const lines: string[] = [];
  const summarized = Promise.withResolvers<void>();
  const write = (line: string) => {
    if (lines.push(line) === 2) summarized.resolve();
  };
  const log = new RateLimitedLog("A peer was turned away", write, 50);
  for (let i = 0; i < 100; i++) log.record(new Error(`reason ${i}`));
  assert.deepEqual(lines, ["A peer was turned away: reason 0"]);
  // Goes on before the next period could end.
  await summarized.promise;
  assert.deepEqual(lines.slice(1), ["A peer was turned away (99 times more within 50 ms), last: reason 99"]);
  log.record(new Error("reason 100"));
  log.close();
  assert.deepEqual(lines.slice(2), ["A peer was turned away (1 times more within 50 ms), last: reason 100"]);
});
