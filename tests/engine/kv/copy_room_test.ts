/** Room for copies beside a slice: as much again, then less, on a device that says what it has left. */

import assert from "node:assert/strict";
import { allocateWithCopies } from "../../../engine/kv/copy_room.ts";
import { kvBytesPerToken } from "../../../engine/kv/kv_slice.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { GpuError } from "../../../kernels/errors.ts";
import type { Gpu } from "../../../kernels/gpu.ts";

const { config } = presetNamed("llama-3-8b");
const GIB = 2 ** 30;

/** A GPU that only counts what is allocated. */
function countingGpu(freeBytes: number): { readonly gpu: Gpu; readonly left: () => number } {
  let left = freeBytes;
  let isExhausted = false;
  const gpu = {
    info: { software: false, maxBindingBytes: 4 * GIB, maxBufferBytes: 4 * GIB },
    tensor(label: string, dtype: string, shape: readonly number[]) {
      const byteLength = shape.reduce((product, size) => product * size, dtype === "f16" ? 2 : 4);
      left -= byteLength;
      isExhausted ||= left < 0;
      return { label, dtype, shape, byteLength, byteOffset: 0, buffer: {} };
    },
    free: ({ byteLength }: { readonly byteLength: number }) => void (left += byteLength),
    check() {
      const failed = isExhausted;
      isExhausted = false;
      return failed ? Promise.reject(new GpuError("out_of_gpu_memory", "no memory")) : Promise.resolve();
    },
    settle: () => Promise.resolve(),
  };
  return { gpu: gpu as unknown as Gpu, left: () => left };
}

Deno.test("allocateWithCopies() gives a slice of 140,000 positions room for as many copies where 40 GiB are free, and less where less is", async () => {
  const wanted = { pages: 2188, plan: { room: "auto", workers: 2 } } as const;
  const pageBytes = kvBytesPerToken(config) * PAGE_TOKENS;
  const room = async (freeGib: number) => {
    const { gpu, left } = countingGpu(freeGib * GIB);
    const { replicaPages } = await allocateWithCopies(gpu, config, wanted);
    assert.ok(left() >= 0);
    assert.ok(freeGib * GIB - left() >= (2188 + replicaPages) * pageBytes);
    return replicaPages;
  };
  // A slice of 17.1 GiB.
  assert.deepEqual([await room(40), await room(36), await room(28), await room(24), await room(20)], [
    2188,
    1094,
    1094,
    547,
    274,
  ]);
  await assert.rejects(room(16), { code: "out_of_gpu_memory" });
});
