/**
 * Finds out how much room the GPU can spare for copies of what other workers hold, beside a slice whose size is given. Knows
 * memory; `copy_plan.ts` knows what to try.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { type CopyPlan, copySizes, leastCopyPages } from "./copy_plan.ts";
import { freeBytes, isExhaustion } from "./free_memory.ts";
import { bindablePages, KvSlice } from "./kv_slice.ts";

/** What must be left for working memory, which comes with the first long prompt. */
const RESERVED_BYTES = 2 * 2 ** 30;

/**
 * Allocates a slice with as much room for copies as leaves enough for the rest of the work.
 * @throws {EngineError} `kv_exhausted` as `KvSlice.allocate`
 * @throws {GpuError} `out_of_gpu_memory` when not even the least fits
 */
export async function allocateWithCopies(
  gpu: Gpu,
  config: ModelConfig,
  { pages, plan }: { readonly pages: number; readonly plan: CopyPlan },
): Promise<KvSlice> {
  // A software adapter's allocations never fail, and the host must not swap.
  const sizes = gpu.info.software ? [] : copySizes(pages, bindablePages(gpu, config), plan);
  for (const size of sizes) {
    const slice = await unlessExhausted(gpu, () => KvSlice.allocate(gpu, config, size));
    if (slice === undefined) continue;
    if (await freeBytes(gpu, RESERVED_BYTES) === RESERVED_BYTES) return slice;
    slice.close();
    await gpu.settle();
  }
  return await KvSlice.allocate(gpu, config, { pages, replicaPages: leastCopyPages(pages, plan) });
}

/** @returns undefined when the GPU has no memory for it */
async function unlessExhausted<T>(gpu: Gpu, allocate: () => Promise<T>): Promise<T | undefined> {
  try {
    return await allocate();
  } catch (error) {
    if (!isExhaustion(error)) throw error;
    // What was freed is given back only when the queue has been waited for.
    await gpu.settle();
    return undefined;
  }
}
