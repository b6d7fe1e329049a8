/** Which worker gets which GPU, on hosts with any number of them. */

import assert from "node:assert/strict";
import type { GpuDevice, Hiding } from "../../../router/host/gpu_devices.ts";
import { describePlacement, type PlacementHost, placeWorkers } from "../../../router/host/placement.ts";

function host(count: number, hiding: Hiding = { kind: "possible" }): PlacementHost {
  const gpus = Array.from({ length: count }, (_, i): GpuDevice => ({
    nodes: [`/dev/nvidia${i}`],
    bus: undefined,
    name: `GPU ${i}`,
  }));
  return { gpus, hiding: () => Promise.resolve(hiding) };
}

/** Name of each worker's GPU and the nodes hidden from it. */
async function inWords(request: Parameters<typeof placeWorkers>[0], on: PlacementHost): Promise<string[]> {
  const places = await placeWorkers(request, on);
  return places.map(({ gpu, prefix }) => {
    const hidden = prefix.join(" ").matchAll(/null \/dev\/nvidia(\d)/g);
    return [gpu?.name ?? "any", ...[...hidden].map(([, n]) => `-${n}`)].join(" ");
  });
}

const own = { shareGpu: false };
const shared = { shareGpu: true };

Deno.test("placeWorkers() gives each worker a GPU of its own and hides the others", async () => {
  assert.deepEqual(await inWords({ workers: 2, ...own }, host(3)), ["GPU 0 -1 -2", "GPU 1 -0 -2"]);
  assert.deepEqual(await inWords({ workers: "auto", ...own }, host(2)), ["GPU 0 -1", "GPU 1 -0"]);
});

Deno.test("placeWorkers() leaves a single worker, and workers on the CPU, where they are", async () => {
  assert.deepEqual(await inWords({ workers: 1, ...own }, host(3)), ["any"]);
  assert.deepEqual(await inWords({ workers: "auto", ...own }, host(1)), ["GPU 0"]);
  assert.deepEqual(await inWords({ workers: 3, ...own }, host(0)), ["any", "any", "any"]);
  assert.deepEqual(await inWords({ workers: "auto", ...own }, host(0)), ["any"]);
});

Deno.test("placeWorkers() lets workers share GPUs only when asked", async () => {
  await assert.rejects(placeWorkers({ workers: 3, ...own }, host(2)), {
    message: "Cannot start 3 workers: 2 GPUs are visible, and each needs its own (--share-gpu lets them share)",
  });
  await assert.rejects(placeWorkers({ workers: 2, ...own }, host(1)), /1 GPU is visible/);
  assert.deepEqual(await inWords({ workers: 3, ...shared }, host(2)), ["GPU 0 -1", "GPU 1 -0", "GPU 0 -1"]);
  assert.deepEqual(await inWords({ workers: 2, ...shared }, host(1)), ["GPU 0", "GPU 0"]);
});

Deno.test("placeWorkers() says why GPUs cannot be hidden, and then puts all workers on one only when asked", async () => {
  const rootless = host(2, { kind: "impossible", reason: "only root may" });
  await assert.rejects(placeWorkers({ workers: 2, ...own }, rootless), {
    code: "invalid_request",
    message: "Cannot start 2 workers on 2 GPUs: hiding the others from each fails, only root may " +
      "(start them in containers of one GPU each and --join them, or put all on one with --share-gpu)",
  });
  assert.deepEqual(await inWords({ workers: 2, ...shared }, rootless), ["any", "any"]);
  const [place] = await placeWorkers({ workers: 1, ...own }, rootless);
  assert.equal(place && describePlacement(place), "where WebGPU puts it");
});
