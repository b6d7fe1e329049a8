/** `GET /health` (the process lives) and `GET /ready` (it can take requests now). Answers from what is known, without asking a worker. */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { copiedContext, longestContext } from "../scheduling/capacity.ts";
import { describeError, RequestError } from "../errors.ts";
import { nearestState } from "../fleet/fleet_group.ts";
import type { GroupState } from "../group/group.ts";
import type { MembershipReport } from "../group/members.ts";
import type { SchedulerStats } from "../scheduling/scheduler_observer.ts";
import { sum } from "../sum.ts";

/** One of the groups that serve the model, at one moment. */
export interface GroupReport {
  readonly state: GroupState;
  /** Who the workers are, and where they are looked for. */
  readonly members: MembershipReport;
  readonly scheduler: Pick<SchedulerStats, "running" | "waiting" | "pages">;
}

/** The service at one moment. */
export interface ServiceState {
  /** At least one. */
  readonly groups: readonly GroupReport[];
  /** Finishing what runs, taking nothing new. */
  readonly draining: boolean;
}

/** Always 200: an unready service must not be killed for it. */
export function healthAnswer(state: ServiceState): Response {
  return Response.json({ status: "ok", ...details(state) });
}

/** 200 only when a group is whole and the service not draining, else 503 with advice when to ask again. */
export function readyAnswer(state: ServiceState): Response {
  const isReady = !state.draining && nearestState(statesOf(state)).kind === "ready";
  if (isReady) return Response.json({ status: "ready", ...details(state) });
  const { status, headers, body } = describeError(refusalOf(state));
  return Response.json({ ...body, status: "unready", ...details(state) }, { status, headers });
}

/** Of each group. */
export function statesOf({ groups }: Pick<ServiceState, "groups">): readonly GroupState[] {
  return groups.map(({ state }) => state);
}

/** Why a service that serves no model now takes no requests: `draining`, `loading`, `group_unavailable`. */
export function refusalOf(service: Pick<ServiceState, "groups" | "draining">): RequestError {
  if (service.draining) return new RequestError("draining", "Cannot take requests: the service is stopping");
  if (nearestState(statesOf(service)).kind === "loading") {
    return new RequestError("loading", "Cannot take requests: the model is still loading");
  }
  return new RequestError("group_unavailable", "Cannot take requests: the workers are not all there");
}

/** The whole, and then each group. */
function details(service: ServiceState) {
  const { groups, draining } = service;
  const nearest = nearestState(statesOf(service));
  const each = groups.map(groupBody);
  const ready = each.filter(({ state }) => state === "ready");
  return {
    group: nearest.kind,
    ...(nearest.kind === "loading" ? { progress: nearest.progress } : {}),
    ...(nearest.kind === "loading" && nearest.reason !== undefined ? { reason: nearest.reason } : {}),
    ...(nearest.kind === "ready" ? readyBody(ready) : {}),
    members: membersOf(groups),
    draining,
    queue: { running: sum(each, ({ queue }) => queue.running), waiting: sum(each, ({ queue }) => queue.waiting) },
    free_tokens: sum(each, (group) => group.free_tokens),
    groups: each,
  };
}

/** Of all groups that are ready together; one context lies in one of them. */
function readyBody(ready: readonly ReturnType<typeof groupBody>[]) {
  const [first] = ready;
  return {
    ...(ready.length === 1 ? { epoch: first?.epoch } : {}),
    model: first?.model,
    workers: ready.flatMap(({ workers = [] }) => workers),
    capacity_tokens: sum(ready, (group) => group.capacity_tokens ?? 0),
    max_context_tokens: Math.max(...ready.map((group) => group.max_context_tokens ?? 0)),
  };
}

function groupBody({ state, scheduler: { running, waiting, pages } }: GroupReport, index: number) {
  return {
    group: index,
    state: state.kind,
    ...(state.kind === "loading" ? { progress: state.progress } : {}),
    ...("reason" in state && state.reason !== undefined ? { reason: state.reason } : {}),
    ...(state.kind === "ready" ? capacityOf(state) : {}),
    queue: { running, waiting },
    // What the prefix cache alone holds, it gives away when asked.
    free_tokens: (pages.free + pages.cached) * PAGE_TOKENS,
  };
}

/** Of the group as it is now: a worker that is gone for good is not there, and the longest context is shorter. */
function capacityOf({ epoch, model }: Extract<GroupState, { kind: "ready" }>) {
  const { id, kvPages, slices, adapters } = model;
  const copied = copiedContext(model);
  return {
    epoch,
    model: id,
    workers: slices.map((pages, i) => ({ adapter: adapters[i] ?? null, capacity_tokens: pages * PAGE_TOKENS })),
    capacity_tokens: kvPages * PAGE_TOKENS,
    max_context_tokens: longestContext(model),
    ...(copied === undefined ? {} : { copied_context_tokens: copied }),
  };
}

/** The members of all groups; each names its group when there are several. */
function membersOf(groups: readonly GroupReport[]) {
  const [origin = ""] = groups.map(({ members }) => members.origin);
  const trouble = groups.map(({ members }) => members.trouble).find((reason) => reason !== undefined);
  return {
    origin,
    ...(trouble === undefined ? {} : { trouble }),
    found: groups.flatMap(({ members }, group) =>
      members.found.map((member) => groups.length === 1 ? member : { group, ...member })
    ),
  };
}
