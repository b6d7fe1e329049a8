/** Opens the groups that were planned, each with its own workers. */

import { type GroupPlan, membershipOf, openGroup } from "../group/open_group.ts";
import type { WorkerGroup } from "../group/worker_group.ts";
import type { WorkerPlan } from "../group/worker_plan.ts";
import { DealtMembership } from "./dealt_membership.ts";

/**
 * Starts all groups at once; each must be closed.
 * @param plans of the workers of each group, as `planGroups` has dealt them
 */
export function openGroups(plans: readonly (readonly WorkerPlan[])[], plan: GroupPlan): readonly WorkerGroup[] {
  const [first = []] = plans;
  if (plans.length === 1) return [openGroup(first, plan)];
  const dealt = first[0]?.kind === "find" ? new DealtMembership(membershipOf(first, plan), plans.length) : undefined;
  return plans.map((workers, index) => {
    const own = { ...plan, log: (line: string) => plan.log(`Group ${index}: ${line}`) };
    return openGroup(workers, own, dealt?.of(index));
  });
}
