/**
 * How large the KV slice becomes. Knows the device and the model's bytes per token; knows nothing of requests.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import { EngineError } from "../errors.ts";
import { allocateWithCopies } from "./copy_room.ts";
import { type CopyPlan, type CopyRoom, dividePages, leastCopyPages, type SlicePages } from "./copy_plan.ts";
import { isExhaustion } from "./free_memory.ts";
import { bindablePages, kvBytesPerToken, KvSlice } from "./kv_slice.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { PAGE_TOKENS, pagesFor } from "../span.ts";

/** Of the memory that is free: a software adapter's allocations never fail, and the host must not swap. */
const SOFTWARE_SHARE = 0.25;

/** Of what a real GPU was found to hold: working memory and other processes need the rest. */
const HARDWARE_SHARE = 0.9;

/** More full contexts than this seldom run at once; the bound keeps small models from taking a whole GPU. */
const HARDWARE_CONTEXTS = 16;

/** A CPU could not compute more, and zeroes the whole slice at its first use: 3 GiB took 4.4 s, a quarter of that 0.3 s. */
const SOFTWARE_CONTEXTS = 4;

/** What room a slice has for rows of others. */
export interface CopyChoice {
  /** Whether the slice is one of several, and keeps room for rows of the others beside its own. @default false */
  readonly replicas?: boolean;
  /** How much. @default "auto" */
  readonly copies?: CopyRoom;
  /** Workers of the group, as far as they are known. @default 2 */
  readonly groupWorkers?: number;
}

/** What a slice is to hold. */
export interface KvCapacity extends CopyChoice {
  /** Positions that the KV slice holds; `auto` takes what the device can spare. */
  readonly kvTokens: number | "auto";
  /** Workers that share the memory of this machine, this one included; counts for `auto` on a software adapter. @default 1 */
  readonly workersOnHost?: number;
}

/**
 * Allocates the slice: as many positions as asked for, or what the device can spare.
 * @throws {EngineError} `kv_exhausted` when the number asked for cannot be
 * @throws {GpuError} `out_of_gpu_memory` when not even one page fits
 */
export async function allocateSlice(
  gpu: Gpu,
  config: ModelConfig,
  { kvTokens, workersOnHost = 1, ...choice }: KvCapacity,
): Promise<KvSlice> {
  const plan = copyPlanOf(choice);
  if (kvTokens !== "auto") return await allocateTokens(gpu, config, { kvTokens, plan });
  const contextPages = pagesFor(config.maxPositions);
  const sizeOf = (total: number): SlicePages => dividePages(Math.max(1, total), contextPages, plan);
  const contexts = gpu.info.software ? SOFTWARE_CONTEXTS : HARDWARE_CONTEXTS;
  const wanted = Math.min(bindablePages(gpu, config), contexts * contextPages);
  if (gpu.info.software) {
    const spare = Deno.systemMemoryInfo().available * SOFTWARE_SHARE / workersOnHost;
    const pages = Math.floor(spare / (kvBytesPerToken(config) * PAGE_TOKENS));
    return await KvSlice.allocate(gpu, config, sizeOf(Math.min(wanted, pages)));
  }
  return await probe(gpu, config, { wanted, sizeOf, plan });
}

/** How a worker with this capacity divides its memory; undefined: it is alone. */
export function copyPlanOf({ replicas = false, copies = "auto", groupWorkers = 2 }: CopyChoice): CopyPlan | undefined {
  return replicas ? { room: copies, workers: Math.max(2, groupWorkers) } : undefined;
}

/** Positions to hold, and pages beside them. */
interface WantedSlice {
  readonly kvTokens: number;
  readonly replicaPages: number;
}

/** @throws {EngineError} `kv_exhausted` when no device of this kind holds so many positions, or none are asked for */
export function checkKvTokens(gpu: Gpu, config: ModelConfig, { kvTokens, replicaPages }: WantedSlice): void {
  const most = (bindablePages(gpu, config) - replicaPages) * PAGE_TOKENS;
  if (kvTokens >= 1 && kvTokens <= most) return;
  throw refusal(kvTokens, `it must be from 1 to ${most} on this device`);
}

function refusal(kvTokens: number, why: string, cause?: unknown): EngineError {
  return new EngineError("kv_exhausted", `Cannot allocate a KV slice of ${kvTokens} tokens: ${why}`, { cause });
}

async function allocateTokens(
  gpu: Gpu,
  config: ModelConfig,
  { kvTokens, plan }: { readonly kvTokens: number; readonly plan: CopyPlan | undefined },
): Promise<KvSlice> {
  const pages = pagesFor(kvTokens);
  const size = { pages, replicaPages: leastCopyPages(pages, plan) };
  checkKvTokens(gpu, config, { kvTokens, ...size });
  const bytes = (size.pages + size.replicaPages) * PAGE_TOKENS * kvBytesPerToken(config);
  const needed = `its ${gib(bytes)} GiB do not fit`;
  const available = gpu.info.software ? Deno.systemMemoryInfo().available : Infinity;
  if (bytes > available) throw refusal(kvTokens, `${needed} into the ${gib(available)} GiB that this machine has left`);
  try {
    return plan === undefined
      ? await KvSlice.allocate(gpu, config, size)
      : await allocateWithCopies(gpu, config, { pages, plan });
  } catch (error) {
    if (!isExhaustion(error)) throw error;
    throw refusal(kvTokens, needed, error);
  }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

/** Tries ever smaller slices; when one fits only just, leaves some of it for the rest of the work. */
async function probe(
  gpu: Gpu,
  config: ModelConfig,
  { wanted, sizeOf, plan }: {
    readonly wanted: number;
    readonly sizeOf: (total: number) => SlicePages;
    readonly plan: CopyPlan | undefined;
  },
): Promise<KvSlice> {
  for (let total = wanted;; total = Math.floor(total * 0.8)) {
    try {
      const slice = await KvSlice.allocate(gpu, config, sizeOf(total));
      if (total === wanted && plan === undefined) return slice;
      slice.close();
      await gpu.settle();
      // The bound was what can be used, not the memory.
      if (total === wanted && plan !== undefined) {
        return await allocateWithCopies(gpu, config, { pages: slice.pages, plan });
      }
      return await KvSlice.allocate(gpu, config, sizeOf(Math.floor(total * HARDWARE_SHARE)));
    } catch (error) {
      if (!isExhaustion(error) || total <= 1) throw error;
      // What was freed is given back only when the queue has been waited for.
      await gpu.settle();
    }
  }
}
