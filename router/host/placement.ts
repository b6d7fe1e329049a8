/**
 * Which worker of this host sits on which GPU, and the command under which it sees only that one.
 * Knows how many GPUs there are and what was asked for; starts nothing.
 */

import { UsageError } from "../errors.ts";
import { describeGpu, findGpus, type GpuDevice, type Hiding, hidingPrefix, tryHiding } from "./gpu_devices.ts";

/** Where a worker sits. */
export interface Placement {
  /** Undefined on the CPU, and where WebGPU picks one by itself. */
  readonly gpu: GpuDevice | undefined;
  /** Words before the worker's command; see `hidingPrefix`. */
  readonly prefix: readonly string[];
}

/** What was asked for. */
export interface PlacementRequest {
  /** `auto` is one for each GPU. */
  readonly workers: number | "auto";
  /** Several workers may sit on one GPU. */
  readonly shareGpu: boolean;
}

/** What a host has. */
export interface PlacementHost {
  readonly gpus: readonly GpuDevice[];
  /** Asked only when there is something to hide. */
  hiding(): Promise<Hiding>;
}

/** This host, as it is now. */
export function thisHost(): PlacementHost {
  const gpus = findGpus();
  const [first] = gpus;
  return {
    gpus,
    hiding: () => first === undefined ? Promise.resolve({ kind: "possible" }) : tryHiding(first),
  };
}

/**
 * A place for each worker: a GPU of its own, the others hidden from it. Any number of workers sit on the CPU of a host
 * without GPUs, and a single worker sits where WebGPU puts it.
 * @throws {UsageError} when there are too few GPUs or none can be hidden, unless they may be shared
 */
export async function placeWorkers(
  { workers, shareGpu }: PlacementRequest,
  host: PlacementHost = thisHost(),
): Promise<Placement[]> {
  const { gpus } = host;
  const count = workers === "auto" ? Math.max(1, gpus.length) : workers;
  if (gpus.length < count && gpus.length > 0 && !shareGpu) {
    const visible = gpus.length === 1 ? "1 GPU is" : `${gpus.length} GPUs are`;
    throw new UsageError(
      `Cannot start ${count} workers: ${visible} visible, and each needs its own (--share-gpu lets them share)`,
    );
  }
  if (gpus.length < 2 || count < 2) return Array.from({ length: count }, () => ({ gpu: onlyOf(gpus), prefix: [] }));
  const hiding = await host.hiding();
  if (hiding.kind === "impossible") {
    if (shareGpu) return Array.from({ length: count }, () => ({ gpu: undefined, prefix: [] }));
    throw new UsageError(
      `Cannot start ${count} workers on ${gpus.length} GPUs: hiding the others from each fails, ${hiding.reason} ` +
        "(start them in containers of one GPU each and --join them, or put all on one with --share-gpu)",
    );
  }
  return Array.from({ length: count }, (_, worker) => {
    const own = gpus[worker % gpus.length];
    return { gpu: own, prefix: hidingPrefix(gpus.filter((gpu) => gpu !== own)) };
  });
}

function onlyOf(gpus: readonly GpuDevice[]): GpuDevice | undefined {
  return gpus.length === 1 ? gpus[0] : undefined;
}

/** A place in words. */
export function describePlacement({ gpu }: Placement): string {
  return gpu === undefined ? "where WebGPU puts it" : describeGpu(gpu);
}
