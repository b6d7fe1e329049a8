/** Which worker belongs to which group. */

import assert from "node:assert/strict";
import { planGroups } from "../../../router/fleet/plan_groups.ts";
import { describePlan, type WorkerPlan } from "../../../router/group/worker_plan.ts";
import type { PlacementHost } from "../../../router/host/placement.ts";
import { resolveWorkers } from "../../../router/host/worker_config.ts";

/** A host with so many GPUs, each of which can be hidden. */
function hostWith(gpus: number): PlacementHost {
  return {
    gpus: Array.from({ length: gpus }, (_, i) => ({ nodes: [`/dev/nvidia${i}`], bus: undefined, name: `GPU ${i}` })),
    hiding: () => Promise.resolve({ kind: "possible" }),
  };
}

const placesOf = (groups: readonly (readonly WorkerPlan[])[]) =>
  groups.map((plans) => plans.map((plan) => describePlan(plan)?.replace(/ \(.*/, "")));

Deno.test("planGroups() deals the GPUs of a host in their order", async () => {
  const planned = await planGroups(resolveWorkers({ groups: 2, workers: 2, kvTokens: [640, 128] }), hostWith(4));
  assert.deepEqual(placesOf(planned), [["GPU 0", "GPU 1"], ["GPU 2", "GPU 3"]]);
  assert.deepEqual(planned.flat().map(({ kvTokens }) => kvTokens), [640, 128, 640, 128]);
  // What a worker may take of the host's memory is for all of them.
  assert.deepEqual(planned.flat().map((plan) => plan.kind === "spawn" && plan.workersOnHost), [4, 4, 4, 4]);
  const all = await planGroups(resolveWorkers({ groups: 3, workers: "auto" }), hostWith(6));
  assert.deepEqual(placesOf(all).map(({ length }) => length), [2, 2, 2]);
  assert.deepEqual(placesOf(await planGroups(resolveWorkers({ groups: 2 }), hostWith(0))), [[undefined], [undefined]]);
});

Deno.test("planGroups() refuses groups that would differ in size, and more workers than GPUs", async () => {
  await assert.rejects(planGroups(resolveWorkers({ groups: 2, workers: "auto" }), hostWith(3)), {
    message: "Cannot deal 3 GPUs to 2 groups: they would differ in size (--workers says how many each has)",
  });
  await assert.rejects(planGroups(resolveWorkers({ groups: 2, workers: 2 }), hostWith(3)), /Cannot start 4 workers: 3/);
});

Deno.test("planGroups() keeps listed workers of one host together", async () => {
  const join = ["a:1", "b:1", "a:2", "b:2"];
  const planned = await planGroups(resolveWorkers({ groups: 2, join, kvTokens: [640, 128] }), hostWith(0));
  assert.deepEqual(placesOf(planned), [["a:1", "a:2"], ["b:1", "b:2"]]);
  assert.deepEqual(planned.flat().map(({ kvTokens }) => kvTokens), [640, 128, 640, 128]);
  assert.throws(() => resolveWorkers({ groups: 3, join }), {
    message: "Cannot deal workers to groups: 4 are named, and 3 groups of equal size are asked for",
  });
  assert.throws(() => resolveWorkers({ groups: 65 }), /groups: must be an integer from 1 to 64/);
});

Deno.test("planGroups() gives all groups the place where workers are looked for", async () => {
  const planned = await planGroups(resolveWorkers({ groups: 2, join: ["dns:workers:8100"] }), hostWith(0));
  assert.deepEqual(placesOf(planned), [["dns:workers:8100"], ["dns:workers:8100"]]);
});
