/**
 * Which workers belong to which group: those of one host next to each other, since the workers of a group talk to each other in
 * every layer and groups never do. Knows plans of workers; starts nothing.
 */

import { UsageError } from "../errors.ts";
import { planWorkers, type WorkerPlan } from "../group/worker_plan.ts";
import { type PlacementHost, thisHost } from "../host/placement.ts";
import type { ResolvedWorkers, WorkerOrigin } from "../host/worker_config.ts";

/**
 * Decides about each worker of each group. Where workers come and go, all groups have the same plan: they are dealt as they
 * are found (`DealtMembership`).
 * @throws {UsageError} as `planWorkers`, and when the GPUs of this host do not make groups of equal size
 */
export async function planGroups(
  { groups, workers, kvTokens, ...others }: ResolvedWorkers,
  host: PlacementHost = thisHost(),
): Promise<readonly (readonly WorkerPlan[])[]> {
  const each = kvTokens.length === 1 ? kvTokens : Array.from({ length: groups }, () => kvTokens).flat();
  const plans = await planWorkers({ ...others, groups, workers: workersOfAll(workers, groups), kvTokens: each }, host);
  if (plans[0]?.kind === "find") return Array.from({ length: groups }, () => plans);
  const size = plans.length / groups;
  if (Number.isInteger(size)) return Array.from({ length: groups }, (_, i) => plans.slice(i * size, (i + 1) * size));
  throw new UsageError(
    `Cannot deal ${plans.length} GPUs to ${groups} groups: they would differ in size (--workers says how many each has)`,
  );
}

/** The workers of all groups together. */
function workersOfAll(workers: WorkerOrigin, groups: number): WorkerOrigin {
  if (workers.kind === "spawn") {
    return { ...workers, count: workers.count === "auto" ? "auto" : workers.count * groups };
  }
  if (workers.source.kind !== "static") return workers;
  const addresses = byHost(workers.source.addresses, ({ hostname }) => hostname);
  return { ...workers, source: { ...workers.source, addresses } };
}

/** The same items, those of one host in a row: hosts in the order of their first item. */
export function byHost<Item>(items: readonly Item[], hostOf: (item: Item) => string): readonly Item[] {
  return [...Map.groupBy(items, hostOf).values()].flat();
}
