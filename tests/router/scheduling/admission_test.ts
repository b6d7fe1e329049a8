/** How many choices one request may queue. */

import assert from "node:assert/strict";
import { collect, generationRequest } from "../../support/generation_request.ts";
import { withScheduler } from "../../support/with_scheduler.ts";

Deno.test("Scheduler.generate() lets one request have half of the free places, so that others find room", () =>
  withScheduler({ scheduler: { maxBatch: 2, maxQueued: 10 } }, async (scheduler) => {
    const choice = (requestId: string, choices: number) =>
      scheduler.generate(generationRequest({ requestId, choices }));
    const many = Array.from({ length: 6 }, () => choice("a", 6));
    assert.throws(() => choice("b", 6), { code: "queue_full", message: /6 choices exceed the 3 .* while 6 places/ });
    const others = Array.from({ length: 6 }, (_, i) => choice(`c${i}`, 1));
    assert.throws(() => choice("d", 1), { code: "queue_full", message: /10 wait already beside 2 .* at most 10/ });
    await Promise.all([...many, ...others].map((generation) => collect(generation)));
  }));
