/** Opens the group of the workers that were planned: each with its way to be reached, and what it is to load. */

import type { CopyRoom } from "../../engine/kv/copy_plan.ts";
import type { SparseExchange } from "../../engine/replica_plan.ts";
import type { ModelSource } from "../../engine/engine.ts";
import { formatAddress } from "../host/address.ts";
import { freshSecret, Launcher } from "../host/worker_process.ts";
import { DnsMembership } from "./membership/dns_membership.ts";
import { describeJoin } from "../host/join_source.ts";
import { fixedMembership, type Membership, type PlanMember } from "./membership/membership.ts";
import { WorkerGroup } from "./worker_group.ts";
import { packagePermission, workerPermissions } from "../host/worker_permissions.ts";
import { describePlan, type OpenSource, type WorkerPlan } from "./worker_plan.ts";
import { joinedWorker, spawnedWorker, type WorkerSource } from "./worker_source.ts";

/** What all workers of a group have in common. */
export interface GroupPlan {
  readonly model: ModelSource;
  /** Name under which clients ask for the model. */
  readonly modelId: string;
  /** Room for copies of what others hold. */
  readonly copies: CopyRoom;
  /** How their sparse layers reach what others hold. */
  readonly sparseExchange: SparseExchange;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** @default 1 */
  readonly minWorkers?: number;
}

/**
 * Starts the group at once; `close` must be called.
 * @param membership who its workers are
 */
export function openGroup(
  plans: readonly WorkerPlan[],
  { minWorkers = 1, modelId, copies, sparseExchange, log, model }: GroupPlan,
  membership: Membership = membershipOf(plans, { model, log, copies, minWorkers }),
): WorkerGroup {
  return new WorkerGroup({ membership, minWorkers, modelId, sparseExchange, log });
}

/** Who the planned workers are. */
export function membershipOf(
  plans: readonly WorkerPlan[],
  { model, log, copies, minWorkers = 1 }: Pick<GroupPlan, "model" | "log" | "copies" | "minWorkers">,
): Membership {
  const [first] = plans;
  if (first?.kind === "find") {
    const { source, secret, trust, kvTokens } = first;
    return openMembership(source, ({ address, name, ...rest }) => ({
      key: formatAddress(address),
      place: name === undefined ? formatAddress(address) : `${name} at ${formatAddress(address)}`,
      source: joinedWorker(address, secret, trust),
      load: { model, kvTokens, replicas: true, copies, groupWorkers: minWorkers },
      ...rest,
    }));
  }
  // Of those that are spawned: peers must trust each other.
  const secret = freshSecret();
  const members = plans.flatMap((plan) => {
    if (plan.kind === "find") return [];
    const place = describePlan(plan);
    return [{
      source: sourceOf(plan, { secret, log, model }),
      load: {
        model,
        kvTokens: plan.kvTokens,
        replicas: plans.length > 1,
        copies,
        groupWorkers: plans.length,
        ...(plan.kind === "spawn" && { workersOnHost: plan.workersOnHost }),
      },
      ...(place === undefined ? {} : { place }),
    }];
  });
  return fixedMembership(members, first?.kind === "join" ? "--join" : "--workers");
}

function openMembership(source: OpenSource, planOf: PlanMember): Membership {
  if (source.kind !== "nats") return new DnsMembership(source, { planOf });
  return {
    origin: describeJoin(source),
    isOpen: true,
    // The client of NATS is loaded only where it is used.
    async watch(listener, signal) {
      const { NatsMembership } = await import("./membership/nats_membership.ts");
      await new NatsMembership(source, { planOf }).watch(listener, signal);
    },
  };
}

function sourceOf(
  plan: Exclude<WorkerPlan, { readonly kind: "find" }>,
  { secret, log, model }: Pick<GroupPlan, "log" | "model"> & { readonly secret: string },
): WorkerSource {
  if (plan.kind === "join") return joinedWorker(plan.address, plan.secret, plan.trust);
  const { gpu, placement: { prefix } } = plan;
  // Dawn is native code.
  const permissions = workerPermissions(model, gpu === "deno" ? [] : [packagePermission()]);
  const launcher = new Launcher({ entry: ENTRY, args: ["--gpu", gpu], prefix, permissions, secret, log });
  return spawnedWorker((signal) => launcher.launch(signal));
}

const ENTRY = new URL("../../mod.ts", import.meta.url);
