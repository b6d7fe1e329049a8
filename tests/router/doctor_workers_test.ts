/** What the growth of used GPU memory proves. */

import assert from "node:assert/strict";
import { judge } from "../../router/commands/doctor_workers.ts";
import type { GpuDevice } from "../../router/host/gpu_devices.ts";

const gpus = [0, 1].map((n): GpuDevice => ({ nodes: [`/dev/nvidia${n}`], bus: undefined, name: undefined }));
const [first, second] = gpus;
const hardware = { software: false };
const software = { software: true };
const MIB = 2 ** 20;

function proofOf(gpu: GpuDevice | undefined, grownMib: readonly (number | undefined)[], held = hardware): string {
  const grown = grownMib.map((mebibytes) => mebibytes === undefined ? undefined : mebibytes * MIB);
  return judge({ gpu, prefix: [] }, held, gpus, grown).proof;
}

Deno.test("judge() takes a place for proven only when memory grew on its GPU and on no other", () => {
  assert.equal(proofOf(second, [3, 1100]), "proven");
  assert.equal(proofOf(undefined, [1100, 0]), "proven", "WebGPU's own choice, whichever it is");
  assert.equal(proofOf(first, [3, 1100]), "contradicted");
  assert.equal(proofOf(first, [1100, 1100]), "unproven");
  assert.equal(proofOf(first, [0, 0]), "unproven");
  assert.equal(proofOf(first, [1100, undefined]), "proven");
  assert.equal(proofOf(first, [undefined, 0]), "unproven");
});

Deno.test("judge() says that a worker is on the CPU, which contradicts a GPU of its own", () => {
  assert.equal(proofOf(undefined, [0, 0], software), "unproven");
  assert.equal(proofOf(first, [0, 0], software), "contradicted");
  const { evidence } = judge({ gpu: undefined, prefix: [] }, software, [], []);
  assert.match(evidence, /computes on the CPU/);
});
