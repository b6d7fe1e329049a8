/** What a GPU can still hold, found out by allocating. Knows bytes; knows nothing of what they are for. */

import { GpuError } from "../../kernels/errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";

/** What is allocated at a time. */
const PIECE_BYTES = 2 ** 30;

/** At most `mostBytes`: memory is allocated piece by piece until the device refuses, and given back. */
export async function freeBytes(gpu: Gpu, mostBytes: number): Promise<number> {
  // A software adapter's allocations never fail.
  if (gpu.info.software) return Math.min(mostBytes, Deno.systemMemoryInfo().available);
  const piece = Math.min(PIECE_BYTES, gpu.info.maxBindingBytes, gpu.info.maxBufferBytes);
  const held: Tensor[] = [];
  try {
    while (held.length * piece < mostBytes) {
      const tensor = gpu.tensor("memory probe", "u32", [piece / 4]);
      held.push(tensor);
      await gpu.check();
    }
  } catch (error) {
    if (!isExhaustion(error)) throw error;
    const refused = held.pop();
    if (refused !== undefined) gpu.free(refused);
  }
  for (const tensor of held) gpu.free(tensor);
  // What was freed is given back only when the queue has been waited for.
  await gpu.settle();
  return Math.min(held.length * piece, mostBytes);
}

/** Whether an allocation failed because the GPU has no memory for it. */
export function isExhaustion(error: unknown): boolean {
  return error instanceof GpuError && error.code === "out_of_gpu_memory";
}
