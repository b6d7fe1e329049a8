/** A group is lost out of two: the other goes on, what ran in the lost one goes on there, and every answer is as it was. */

import assert from "node:assert/strict";
import { loseGroup, startGroups } from "./lost_group.ts";

/** A death shows as an end of the connection; on a busy machine that may take a while. */
const NOTICED_MS = 20_000;

Deno.test("a service of two groups answers as if nothing had been when the worker of one is killed", async () => {
  await using live = await startGroups();
  assert.deepEqual(live.model.workers.map(({ group }) => group), [0, 1]);
  assert.equal(live.model.kvTokens, 2 * live.model.contextTokens);
  const { streams, texts, replays, moved, unready, looks, noticedMs } = await loseGroup(live, "kill");
  assert.deepEqual(streams, texts.map((text) => ({ text, error: undefined, done: true })));
  assert.ok(replays === 1 || replays === 2, `${replays} of the lost group's two were computed again`);
  assert.ok(moved > 0, "they went on in the other");
  assert.deepEqual([unready, looks > 1], [0, true], "one group is enough to be ready");
  assert.ok(noticedMs < NOTICED_MS, `noticed after ${noticedMs} ms`);
  await live.idle(30_000);
});
