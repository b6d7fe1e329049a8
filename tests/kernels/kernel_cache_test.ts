/** Kernels that are compiled ahead: all are asked for before one is waited for, and nothing runs meanwhile. */

import assert from "node:assert/strict";

import type { KernelSpec } from "../../kernels/pipeline.ts";
import { writes } from "../../kernels/wgsl.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();

const set = (value: string): KernelSpec => ({
  bindings: [writes("out", "array<u32>")],
  params: [["zero", "u32"]],
  source: `@compute @workgroup_size(1) fn main() { out[0] = ${value} + params.zero; }`,
});

function dispatch(name: string, value: string, out: ReturnType<typeof fixture.zeros>): void {
  const { commands } = fixture;
  commands.dispatch(commands.kernel(name, () => set(value)), {
    tensors: [out],
    params: { zero: 0 },
    groups: [1, 1, 1],
  });
}

Deno.test("KernelCache.compileAhead() asks for every kernel once, and what is dispatched does not run", async () => {
  const { commands, gpu: { device } } = fixture;
  const out = fixture.zeros("u32", [4]);
  const before = commands.kernels.size;
  const asked: string[] = [];
  const { createComputePipelineAsync, createComputePipeline } = device;
  device.createComputePipelineAsync = (descriptor) => {
    asked.push(`ahead: ${descriptor.label}`);
    return createComputePipelineAsync.call(device, descriptor);
  };
  device.createComputePipeline = (descriptor) => {
    asked.push(`alone: ${descriptor.label}`);
    return createComputePipeline.call(device, descriptor);
  };
  try {
    await commands.kernels.compileAhead(async () => {
      for (const value of ["1", "2", "1"]) dispatch(`set ${value}`, value, out);
      assert.ok(commands.kernels.isCompilingAhead);
      assert.deepEqual([...await fixture.words(out)], [0, 0, 0, 0]);
    });
    assert.equal(commands.kernels.size, before + 2);
    dispatch("set 2", "2", out);
    assert.deepEqual([...await fixture.words(out)], [2, 0, 0, 0]);
    assert.deepEqual(asked, ["ahead: set 1", "ahead: set 2"]);
  } finally {
    Object.assign(device, { createComputePipelineAsync, createComputePipeline });
  }
});

Deno.test("KernelCache.compileAhead() names the kernel that cannot be compiled, and goes on afterwards", async () => {
  const { commands } = fixture;
  const out = fixture.zeros("u32", [4]);
  await assert.rejects(
    commands.kernels.compileAhead(() => {
      dispatch("wrong", "nothing", out);
      dispatch("right", "3", out);
      return Promise.resolve();
    }),
    { name: "GpuError", code: "shader_error", message: /nothing/ },
  );
  dispatch("right", "3", out);
  assert.deepEqual([...await fixture.words(out)], [3, 0, 0, 0]);
  await assert.rejects(commands.kernels.compileAhead(() => Promise.reject(new Error("recording"))), /recording/);
  assert.ok(!commands.kernels.isCompilingAhead);
});
