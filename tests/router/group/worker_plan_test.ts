/** The workers of a group, one by one. */

import assert from "node:assert/strict";
import { resolveWorkers } from "../../../router/host/worker_config.ts";
import { describePlan, planWorkers } from "../../../router/group/worker_plan.ts";
import { withFiles } from "../../support/model_directory.ts";

const gpu = { nodes: ["/dev/nvidia0"], bus: undefined, name: "H200" };
const cpu = { gpus: [], hiding: () => assert.fail("nothing is hidden") };
const oneGpu = { ...cpu, gpus: [gpu] };

Deno.test("planWorkers() deals capacity to workers on the CPU", async () => {
  assert.deepEqual(await planWorkers(resolveWorkers({ workers: 2, kvTokens: [640, 128] }), cpu), [
    { kind: "spawn", placement: { gpu: undefined, prefix: [] }, gpu: "auto", workersOnHost: 2, kvTokens: 640 },
    { kind: "spawn", placement: { gpu: undefined, prefix: [] }, gpu: "auto", workersOnHost: 2, kvTokens: 128 },
  ]);
  await assert.rejects(planWorkers(resolveWorkers({ workers: "auto", kvTokens: [640, 128] }), cpu), {
    message: "Cannot deal KV capacity: one for all or one for each of 1 workers is needed, given [640, 128]",
  });
});

Deno.test("planWorkers() lets workers share a GPU only with capacities in numbers", async () => {
  const shared = { workers: 2, shareGpu: true };
  await assert.rejects(planWorkers(resolveWorkers(shared), oneGpu), {
    code: "invalid_request",
    message: "Cannot share a GPU with --kv-tokens auto: the first worker would take all of it",
  });
  const plans = await planWorkers(resolveWorkers({ ...shared, kvTokens: 640 }), oneGpu);
  assert.deepEqual(plans.map(describePlan), ["H200 (/dev/nvidia0)", "H200 (/dev/nvidia0)"]);
  assert.equal((await planWorkers(resolveWorkers(shared), cpu)).length, 2);
});

Deno.test("planWorkers() gives workers elsewhere the secret of the file", async () => {
  await withFiles({ secret: "0123456789abcdef\n" }, async (directory) => {
    const choice = { join: ["a:1", "[::1]:2"], secretFile: `${directory}/secret`, kvTokens: [640, 128] };
    const plans = await planWorkers(resolveWorkers(choice), cpu);
    assert.deepEqual(plans.map((plan) => plan.kind === "join" && [plan.secret, plan.kvTokens]), [
      ["0123456789abcdef", 640],
      ["0123456789abcdef", 128],
    ]);
    assert.deepEqual(plans.map(describePlan), ["a:1", "[::1]:2"]);
    const missing = { ...choice, secretFile: `${directory}/missing` };
    await assert.rejects(planWorkers(resolveWorkers(missing), cpu), /Cannot read --secret-file/);
  });
});
