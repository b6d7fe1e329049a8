/** Memory in use, from what drivers say. */

import assert from "node:assert/strict";
import { usedGpuBytes } from "../../../router/host/gpu_memory.ts";

const MIB = 2 ** 20;

const nvidia = (n: number, bus?: string) => ({ nodes: [`/dev/nvidia${n}`], bus, name: undefined });

Deno.test("usedGpuBytes() reads nvidia-smi by PCI address and amdgpu's own file, and admits what it cannot know", async () => {
  const used = await usedGpuBytes([
    nvidia(0, "0000:00:07.0"),
    nvidia(1, "0000:4f:00.0"),
    nvidia(2),
    { nodes: ["/dev/dri/renderD128"], bus: "0000:03:00.0", name: "amdgpu" },
    { nodes: ["/dev/dri/renderD129"], bus: "0000:04:00.0", name: "i915" },
  ], {
    nvidiaSmi: () => Promise.resolve("00000000:4F:00.0, 1024\n00000000:00:07.0, 3\n"),
    read: (path) =>
      Promise.resolve(path === "/sys/class/drm/renderD128/device/mem_info_vram_used" ? "12345678\n" : undefined),
  });
  assert.deepEqual(used, [3 * MIB, 1024 * MIB, undefined, 12345678, undefined]);
});

Deno.test("usedGpuBytes() asks nvidia-smi only about NVIDIA's, and copes without it", async () => {
  const sources = { nvidiaSmi: () => Promise.resolve(undefined), read: () => Promise.resolve(undefined) };
  assert.deepEqual(await usedGpuBytes([nvidia(0, "0000:00:07.0")], sources), [undefined]);
  const unasked = { ...sources, nvidiaSmi: () => assert.fail("there is none of NVIDIA's") };
  assert.deepEqual(await usedGpuBytes([], unasked), []);
  assert.equal((await usedGpuBytes([nvidia(99, "0000:99:00.0")]))[0], undefined, "on this host");
});
