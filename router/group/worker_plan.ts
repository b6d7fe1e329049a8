/**
 * The workers of a group one by one: how each is reached and how much it is to hold. Brings the configuration together
 * with the GPUs of this host and the secret's file, and opens the group; what a group does then is its own business.
 */

import type { ModelSource } from "../../engine/engine.ts";
import type { GpuChoice } from "../../kernels/choose_provider.ts";
import type { Address } from "../../workers/protocol.ts";
import { formatAddress } from "../host/address.ts";
import { UsageError } from "../command_line.ts";
import { describeGpu } from "../host/gpu_devices.ts";
import { freshSecret, Launcher } from "../host/worker_process.ts";
import { type Placement, type PlacementHost, placeWorkers, thisHost } from "../host/placement.ts";
import { readSecretFile } from "../host/secret_file.ts";
import { type KvTokens, kvTokensOfEach, type ResolvedWorkers } from "../host/worker_config.ts";
import { packagePermission, workerPermissions } from "../host/worker_permissions.ts";
import { WorkerGroup } from "./worker_group.ts";
import { joinedWorker, spawnedWorker, type WorkerSource } from "./worker_source.ts";

/** One worker to be. */
export type WorkerPlan =
  & { readonly kvTokens: KvTokens }
  & (
    | {
      readonly kind: "spawn";
      readonly placement: Placement;
      readonly gpu: GpuChoice;
      /** All those that are spawned. */
      readonly workersOnHost: number;
    }
    | { readonly kind: "join"; readonly address: Address; readonly secret: string | undefined }
  );

/**
 * Decides about each worker.
 * @throws {UsageError} when the host has too few GPUs, when they would be shared blindly, or the secret cannot be read
 */
export async function planWorkers(
  { workers, kvTokens }: ResolvedWorkers,
  host: PlacementHost = thisHost(),
): Promise<readonly WorkerPlan[]> {
  if (workers.kind === "join") {
    const secret = workers.secretFile === undefined ? undefined : await readSecretFile(workers.secretFile);
    const each = kvTokensOfEach(kvTokens, workers.addresses.length);
    return workers.addresses.map((address, i) => ({ kind: "join", address, secret, kvTokens: each[i] ?? "auto" }));
  }
  const { count, shareGpu, gpu } = workers;
  const placements = await placeWorkers({ workers: count, shareGpu }, host);
  const each = kvTokensOfEach(kvTokens, placements.length);
  const isShared = host.gpus.length > 0 && new Set(placements.map(({ gpu }) => gpu)).size < placements.length;
  if (isShared && each.includes("auto")) {
    throw new UsageError("Cannot share a GPU with --kv-tokens auto: the first worker would take all of it");
  }
  const workersOnHost = placements.length;
  return placements.map((placement, i) => (
    { kind: "spawn", placement, gpu, workersOnHost, kvTokens: each[i] ?? "auto" }
  ));
}

/** Where a worker is, in words; undefined for the only process of this host, which sits where WebGPU puts it. */
export function describePlan(plan: WorkerPlan): string | undefined {
  if (plan.kind === "join") return formatAddress(plan.address);
  return plan.placement.gpu === undefined ? undefined : describeGpu(plan.placement.gpu);
}

/** What all workers of a group have in common. */
export interface GroupPlan {
  readonly model: ModelSource;
  /** Name under which clients ask for the model. */
  readonly modelId: string;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
}

/** Starts the group at once; `close` must be called. */
export function openGroup(plans: readonly WorkerPlan[], { model, modelId, log }: GroupPlan): WorkerGroup {
  // Of those that are spawned: peers must trust each other.
  const secret = freshSecret();
  const members = plans.map((plan) => ({
    source: sourceOf(plan, { secret, log, model }),
    load: {
      model,
      kvTokens: plan.kvTokens,
      ...(plan.kind === "spawn" && { workersOnHost: plan.workersOnHost }),
    },
  }));
  return new WorkerGroup({ members, modelId, log });
}

function sourceOf(
  plan: WorkerPlan,
  { secret, log, model }: Pick<GroupPlan, "log" | "model"> & { readonly secret: string },
): WorkerSource {
  if (plan.kind === "join") return joinedWorker(plan.address, plan.secret);
  const { gpu, placement: { prefix } } = plan;
  // Dawn is native code.
  const permissions = workerPermissions(model, gpu === "deno" ? [] : [packagePermission()]);
  const launcher = new Launcher({ entry: ENTRY, args: ["--gpu", gpu], prefix, permissions, secret, log });
  return spawnedWorker((signal) => launcher.launch(signal));
}

const ENTRY = new URL("../../mod.ts", import.meta.url);
