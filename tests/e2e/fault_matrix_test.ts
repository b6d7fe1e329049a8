/**
 * Faults in a request's life: noticed in time, reported once, survived, and nothing is left behind. Each point and each fault
 * once; `deno run -A tests/e2e/fault_matrix.ts` tries every fault at every point.
 */

import assert from "node:assert/strict";

import { describeOutcome, faultMatrix, SAMPLE } from "./fault_matrix.ts";

/** A death and a cut show as an end of the connection, accounts that differ at once; on a busy machine that may take a while. */
const NOTICED_MS = 20_000;

/** A hang, and frames that never become whole, show by the deadline of a step. */
const BY_DEADLINE: readonly string[] = ["stop", "corrupt"];

/** From the notice to a group that is whole; a fresh process has to start and load. */
const RECOVERED_MS = 120_000;

Deno.test("a service of two workers survives a fault at every point", async (t) => {
  const seen: string[] = [];
  for await (const outcome of faultMatrix(SAMPLE)) {
    const { fault, point, stepMs, noticedMs, readyMs, news, heldPages } = outcome;
    const mostMs = NOTICED_MS + (BY_DEADLINE.includes(fault) ? stepMs : 0);
    seen.push(`${fault} ${point}`);
    await t.step(`${fault} at ${point}`, () => {
      assert.equal(describeOutcome(outcome), "answered to the end", news.join("\n"));
      assert.ok(noticedMs < mostMs, `noticed after ${noticedMs} ms`);
      assert.ok(readyMs < noticedMs + RECOVERED_MS, `whole again after ${readyMs} ms`);
      // The worker that fails while it loads was killed before.
      assert.equal(news.length, point === "load" ? 2 : 1, news.join("\n"));
      assert.equal(heldPages, 0);
    });
  }
  assert.deepEqual(seen.sort(), SAMPLE.map(({ fault, point }) => `${fault} ${point}`).sort());
});
