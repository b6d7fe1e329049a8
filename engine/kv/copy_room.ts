/**
 * How much room a slice has beside its own pages for copies of what other workers hold: as much again where the GPU can spare it, so that
 * in a group of two whatever the slices hold can be copied whole. Knows pages and the memory that is left; knows nothing of
 * what is copied.
 */

import { GpuError } from "../../kernels/errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { bindablePages, KvSlice, type SlicePages } from "./kv_slice.ts";

/** Of the slice's own pages, from the most that is tried on. */
const SHARES = [1, 1 / 2, 1 / 4] as const;

/** What must be left for working memory, which comes with the first long prompt. */
const RESERVED_BYTES = 2 * 2 ** 30;
const PIECE_BYTES = 2 ** 30;

/**
 * The sizes that are tried, the largest first: none below the least, nor beyond what can be bound.
 * @param least with the room that a slice has in any case
 */
export function copySizes(least: SlicePages, bindable: number): readonly SlicePages[] {
  const { pages } = least;
  const room = SHARES.map((share) => Math.min(Math.ceil(pages * share), bindable - pages));
  return [...new Set(room)].filter((more) => more > least.replicaPages)
    .map((replicaPages) => ({ pages, replicaPages }));
}

/**
 * Allocates a slice with as much room for copies as leaves enough for the rest of the work.
 * @throws {EngineError} `kv_exhausted` as `KvSlice.allocate`
 * @throws {GpuError} `out_of_gpu_memory` when not even the least fits
 */
export async function allocateWithCopies(gpu: Gpu, config: ModelConfig, least: SlicePages): Promise<KvSlice> {
  // A software adapter's allocations never fail, and the host must not swap.
  const sizes = gpu.info.software ? [] : copySizes(least, bindablePages(gpu, config));
  for (const size of sizes) {
    const slice = await unlessExhausted(gpu, () => KvSlice.allocate(gpu, config, size));
    if (slice === undefined) continue;
    if (await hasReserve(gpu)) return slice;
    slice.close();
    await gpu.settle();
  }
  return await KvSlice.allocate(gpu, config, least);
}

/** Whether enough is left for the rest of the work: allocated, and given back. */
async function hasReserve(gpu: Gpu): Promise<boolean> {
  const piece = Math.min(PIECE_BYTES, gpu.info.maxBindingBytes, gpu.info.maxBufferBytes);
  const held: Tensor[] = [];
  const isThere = await unlessExhausted(gpu, async () => {
    while (held.length * piece < RESERVED_BYTES) held.push(gpu.tensor("memory probe", "u32", [piece / 4]));
    await gpu.check();
    return held.length;
  });
  for (const tensor of held) gpu.free(tensor);
  await gpu.settle();
  return isThere !== undefined;
}

/** @returns undefined when the GPU has no memory for it */
async function unlessExhausted<T>(gpu: Gpu, allocate: () => Promise<T>): Promise<T | undefined> {
  try {
    return await allocate();
  } catch (error) {
    if (!(error instanceof GpuError) || error.code !== "out_of_gpu_memory") throw error;
    // What was freed is given back only when the queue has been waited for.
    await gpu.settle();
    return undefined;
  }
}
