/**
 * The workers of a group one by one: how each is reached and how much it is to hold. Brings the configuration together
 * with the GPUs of this host and the secret's file; starts nothing.
 */

import type { GpuChoice } from "../../kernels/choose_provider.ts";
import type { Address } from "../../workers/protocol.ts";
import type { TlsTrust } from "../../workers/transport.ts";
import { formatAddress } from "../host/address.ts";
import { UsageError } from "../errors.ts";
import { describeGpu } from "../host/gpu_devices.ts";
import { describeJoin, type JoinSource } from "../host/join_source.ts";
import { type Placement, type PlacementHost, placeWorkers, thisHost } from "../host/placement.ts";
import { readTrust } from "../host/tls_files.ts";
import { readSecretFile } from "../host/secret_file.ts";
import { type KvTokens, kvTokensOfEach, type ResolvedWorkers } from "../host/worker_config.ts";

/** How workers that run elsewhere are reached. */
export interface WorkerAccess {
  readonly secret: string | undefined;
  /** Undefined: in clear text. */
  readonly trust?: TlsTrust;
}

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
    | ({ readonly kind: "join"; readonly address: Address } & WorkerAccess)
    /** As many as there are where they are looked for. */
    | ({ readonly kind: "find"; readonly source: OpenSource } & WorkerAccess)
  );

/** Where workers that are not listed are found. */
export type OpenSource = Exclude<JoinSource, { readonly kind: "static" }>;

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
    const { source, tls } = workers;
    const access = { secret, ...(tls === undefined ? {} : { trust: await readTrust(tls) }) };
    if (source.kind !== "static") return [{ kind: "find", source, ...access, kvTokens: kvTokens[0] ?? "auto" }];
    const each = kvTokensOfEach(kvTokens, source.addresses.length);
    return source.addresses.map((address, i) => ({ kind: "join", address, ...access, kvTokens: each[i] ?? "auto" }));
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
  if (plan.kind === "find") return describeJoin(plan.source);
  return plan.placement.gpu === undefined ? undefined : describeGpu(plan.placement.gpu);
}
