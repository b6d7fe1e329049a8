/** The restart policy, on a clock of the test's own. */

import assert from "node:assert/strict";
import { RestartPolicy } from "../../../router/group/restart_policy.ts";

Deno.test("RestartPolicy.failed() doubles the wait and gives up at the fifth failure within a minute", () => {
  const policy = new RestartPolicy();
  const waits = [0, 1000, 2000, 3000, 4000].map((now) => policy.failed(now));
  assert.deepEqual(waits, [200, 400, 800, 1600, undefined]);
});

Deno.test("RestartPolicy.failed() never waits longer than 10 s for a worker that fails slowly", () => {
  const policy = new RestartPolicy();
  const waits = Array.from({ length: 9 }, (_, i) => policy.failed(i * 20_000));
  assert.deepEqual(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
});

Deno.test("RestartPolicy.failed() starts small again after a minute without a failure", () => {
  const policy = new RestartPolicy();
  assert.deepEqual([0, 1000, 61_000, 122_000].map((now) => policy.failed(now)), [200, 400, 200, 200]);
});
