/** Errors of the device reach the next caller that checks, once, also when checks overlap. */

import assert from "node:assert/strict";

import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();

/** A buffer of a usage that no device allows. */
function makeInvalid(): void {
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE;
  fixture.gpu.device.createBuffer({ label: "impossible", size: 16, usage });
}

Deno.test("Gpu.check() throws an error once, to one of the callers that check at the same time", async () => {
  const { gpu } = fixture;
  makeInvalid();
  const ends = await Promise.allSettled([gpu.check(), gpu.read([]), gpu.check()]);
  const codes = ends.map((end) => end.status === "rejected" ? end.reason.code : end.status);
  assert.deepEqual(codes, ["shader_error", "fulfilled", "fulfilled"]);
  await gpu.check();
});

Deno.test("Gpu.check() does not lose an error that happens while another check waits", async () => {
  const { gpu } = fixture;
  const before = gpu.check();
  makeInvalid();
  await before;
  await assert.rejects(gpu.check(), {
    code: "shader_error",
    message: /^Cannot run GPU commands: .*(MAP_READ|impossible)/s,
  });
});

Deno.test("Gpu.read() gives each of several readers its own bytes", async () => {
  const { gpu } = fixture;
  const tensors = [1, 2, 3].map((value) => {
    const tensor = gpu.tensor(`value ${value}`, "u32", [4]);
    gpu.write(tensor, new Uint32Array(4).fill(value));
    return tensor;
  });
  const read = await Promise.all(tensors.map((tensor) => gpu.read([{ tensor, byteLength: 4 }])));
  assert.deepEqual(read.map(([bytes]) => bytes?.[0]), [1, 2, 3]);
  for (const tensor of tensors) gpu.free(tensor);
});

Deno.test("Gpu.write() takes memory that threads share, and lengths that are no multiple of 4", async () => {
  const { gpu } = fixture;
  const shared = new Uint32Array(new SharedArrayBuffer(64));
  shared.set(Array.from({ length: 16 }, (_, i) => i + 1));
  const tensor = gpu.tensor("words", "u32", [16]);
  const bytes = new Uint8Array(new SharedArrayBuffer(16)).fill(9).subarray(0, 6);
  gpu.write(tensor, shared);
  gpu.write(tensor, bytes, 8);
  const words = [...await gpu.readU32({ tensor })];
  assert.deepEqual(words.slice(0, 2), [1, 2]);
  assert.deepEqual(words.slice(2, 4), [0x09090909, 0x0909]);
  assert.deepEqual(words.slice(4), Array.from({ length: 12 }, (_, i) => i + 5));
  gpu.free(tensor);
});
