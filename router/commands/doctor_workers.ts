/**
 * `doctor --workers`: on which GPU each worker would sit, proved by what each GPU's driver says while a process in the
 * worker's place holds memory. Knows places and processes; knows no model.
 */

import { openGpu } from "../../kernels/choose_provider.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import { planGroups } from "../fleet/plan_groups.ts";
import type { WorkerPlan } from "../group/worker_plan.ts";
import { describeGpu, type GpuDevice } from "../host/gpu_devices.ts";
import { usedGpuBytes } from "../host/gpu_memory.ts";
import { describePlacement, type Placement, type PlacementRequest, thisHost } from "../host/placement.ts";
import { resolveWorkers } from "../host/worker_config.ts";

/** What was found about a worker's place. */
export interface PlaceDiagnosis {
  /** Absent when there is only one. */
  readonly group?: number;
  /** Within its group. */
  readonly worker: number;
  /** Where it should sit, in words. */
  readonly place: string;
  /** What WebGPU offers there. */
  readonly adapter: string;
  readonly software: boolean;
  readonly proof: "proven" | "unproven" | "contradicted";
  /** Why, in a sentence. */
  readonly evidence: string;
}

/** What a process in a worker's place reports. */
interface Held {
  readonly adapter: string;
  readonly software: boolean;
}

/** Enough to stand out from what comes and goes on a GPU in use. */
const HELD_MIB = 1024;

const MIB = 2 ** 20;

/** The process may have to compile its modules first. */
const HOLD_MS = 60_000;

/** Where workers of how many groups are to sit. */
export interface PlacesRequest extends PlacementRequest {
  /** Of so many workers each. */
  readonly groups: number;
}

/** Tries every worker's place in turn, as `serve` would deal them to groups. */
export async function diagnosePlaces({ groups, workers, shareGpu }: PlacesRequest): Promise<readonly PlaceDiagnosis[]> {
  const host = thisHost();
  const found: PlaceDiagnosis[] = [];
  // Capacities are of no interest here; a number lets workers share a GPU.
  const planned = await planGroups(resolveWorkers({ groups, workers, shareGpu, kvTokens: PAGE_TOKENS }), host);
  for (const { group, worker, placement } of planned.flatMap(placesOf)) {
    const before = await usedGpuBytes(host.gpus);
    const { held, during } = await whileHolding(placement, () => usedGpuBytes(host.gpus));
    const grownBytes = during.map((bytes, i) => {
      const earlier = before[i];
      return bytes === undefined || earlier === undefined ? undefined : bytes - earlier;
    });
    found.push({
      ...(groups === 1 ? {} : { group }),
      worker,
      place: describePlacement(placement),
      ...held,
      ...judge(placement, held, host.gpus, grownBytes),
    });
  }
  return found;
}

function placesOf(plans: readonly WorkerPlan[], group: number) {
  return plans.flatMap((plan, worker) => plan.kind === "spawn" ? [{ group, worker, placement: plan.placement }] : []);
}

/** What the growth of each GPU's used memory says about a place. */
export function judge(
  { gpu: own }: Placement,
  { software }: Pick<Held, "software">,
  gpus: readonly GpuDevice[],
  grownBytes: readonly (number | undefined)[],
): Pick<PlaceDiagnosis, "proof" | "evidence"> {
  if (software && own === undefined) {
    return { proof: "unproven", evidence: "it computes on the CPU: there is no GPU to identify" };
  }
  if (software) return { proof: "contradicted", evidence: "it computes on the CPU: WebGPU does not see its GPU" };
  const grown = gpus.flatMap((gpu, i) => (grownBytes[i] ?? 0) >= HELD_MIB * MIB / 2 ? [gpu] : []);
  const [only, ...others] = grown;
  if (only === undefined && (grownBytes.includes(undefined) || gpus.length === 0)) {
    return { proof: "unproven", evidence: "the driver does not say how much of its memory is in use" };
  }
  if (only === undefined || others.length > 0) {
    const where = only === undefined ? "no GPU's" : "several GPUs'";
    return { proof: "unproven", evidence: `${HELD_MIB} MiB were held, and ${where} used memory grew` };
  }
  const evidence = `${HELD_MIB} MiB that it held lay on ${describeGpu(only)}`;
  return { proof: own === undefined || own === only ? "proven" : "contradicted", evidence };
}

/** Starts a process in a worker's place, and reads the drivers' figures while it holds memory. */
async function whileHolding<T>(placement: Placement, look: () => Promise<T>): Promise<{ held: Held; during: T }> {
  const entry = new URL("../../mod.ts", import.meta.url).href;
  const [program = "", ...args] = [
    ...placement.prefix,
    ...[Deno.execPath(), "run", "--quiet", "-A", entry, "doctor", "--hold-mib", `${HELD_MIB}`],
  ];
  const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "inherit" }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), HOLD_MS);
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  try {
    const { value = "" } = await lines.read();
    if (!value.startsWith("{")) {
      throw new RequestError("worker_lost", "Cannot try the place of a worker: the process in it held no memory");
    }
    return { held: JSON.parse(value), during: await look() };
  } finally {
    await child.stdin.close();
    await lines.cancel();
    await child.status;
    clearTimeout(timer);
  }
}

/** The part of the process in a worker's place: holds memory of its GPU until stdin ends. */
export async function holdMemory(mebibytes: number, report: (line: string) => void): Promise<void> {
  // Every provider sits on the same GPU: Deno's own is always there.
  const gpu = await openGpu({ choice: "deno" });
  try {
    const { adapter, software, maxBindingBytes } = gpu.info;
    let leftBytes = mebibytes * MIB;
    while (leftBytes > 0) {
      const bytes = Math.min(leftBytes, 256 * MIB, maxBindingBytes);
      const tensor = gpu.tensor("held", "u32", [bytes / 4]);
      // A software adapter takes memory only when it is touched.
      gpu.write(tensor, Uint32Array.of(1));
      leftBytes -= bytes;
    }
    await gpu.settle();
    const held: Held = { adapter, software };
    report(JSON.stringify(held));
    for await (const _ of Deno.stdin.readable) continue;
  } finally {
    await gpu.close();
  }
}
