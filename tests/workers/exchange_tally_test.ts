/** What exchanges are said to have cost, also when they overlap. */

import assert from "node:assert/strict";
import { ExchangeTally } from "../../workers/exchange_tally.ts";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

Deno.test("ExchangeTally.time() counts read-backs apart, and not those of others that overlap", async () => {
  const tally = new ExchangeTally();
  const keys = (readMs: number, restMs: number) =>
    tally.time("keys", async () => {
      await tally.read("keys", () => pause(readMs));
      await pause(restMs);
    });
  // Subtracted from both, the reads would leave less than nothing.
  await Promise.all([keys(40, 5), keys(40, 5)]);
  const { ms, readMs } = tally.take();
  assert.ok(readMs >= 79, `${readMs} ms of read-backs`);
  assert.ok(ms.keys >= 9, `${ms.keys} ms beside them`);
  assert.equal(tally.take().readMs, 0);
});
