/** One of the groups that serve the same model, with what runs requests on it. */

import { longestContext } from "../scheduling/capacity.ts";
import { type Group, type GroupState, type ModelInfo, modelInService } from "../group/group.ts";
import type { Scheduler } from "../scheduling/scheduler.ts";

/** A group and its scheduler. */
export interface FleetGroup<AnyGroup extends Group = Group> {
  /** Place in the fleet, from 0. */
  readonly index: number;
  readonly group: AnyGroup;
  readonly scheduler: Scheduler;
}

/** How near a group is to running steps, the nearest first. */
const KINDS: readonly GroupState["kind"][] = ["ready", "loading", "broken", "closed"];

/** Compares groups by how near they are to running steps; a group that ran before is nearer than one that never did. */
export function byReadiness(a: GroupState, b: GroupState): number {
  return KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) ||
    Number(modelInService(a) === undefined) - Number(modelInService(b) === undefined);
}

/** The state that is nearest to running steps. @param states at least one */
export function nearestState(states: readonly GroupState[]): GroupState {
  return states.toSorted(byReadiness)[0] ?? { kind: "closed" };
}

/** Whether a group has loaded another model than the first that has one: it must not answer under its name. */
export function hasOtherModel(state: GroupState, states: readonly GroupState[]): boolean {
  const [served] = states.map(modelInService).filter((model) => model !== undefined);
  const own = modelInService(state);
  return own !== undefined && own.digest !== served?.digest;
}

/** What all groups serve, by the one with the longest context of those that are nearest to running; undefined before any has loaded. */
export function modelOfAll(states: readonly GroupState[]): ModelInfo | undefined {
  const alike = states.filter((state) => !hasOtherModel(state, states));
  const { kind } = nearestState(alike);
  const models = alike.filter((state) => state.kind === kind).map(modelInService).filter((model) =>
    model !== undefined
  );
  return models.toSorted((a, b) => longestContext(b) - longestContext(a))[0];
}

/** Whether two groups compute the same bits: workers on the same adapters, in the same order. */
export function areAlike(a: ModelInfo, b: ModelInfo): boolean {
  return a.adapters.join("\n") === b.adapters.join("\n");
}
