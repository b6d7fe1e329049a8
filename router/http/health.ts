/** `GET /health` (the process lives) and `GET /ready` (it can take requests now). Answers from what is known, without asking a worker. */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { longestContext } from "../scheduling/capacity.ts";
import { describeError, RequestError } from "../errors.ts";
import type { GroupState } from "../group/group.ts";
import type { MembershipReport } from "../group/members.ts";
import type { SchedulerStats } from "../scheduling/scheduler_observer.ts";

/** The service at one moment. */
export interface ServiceState {
  readonly group: GroupState;
  /** Who the workers are, and where they are looked for. */
  readonly members: MembershipReport;
  /** Finishing what runs, taking nothing new. */
  readonly draining: boolean;
  readonly scheduler: Pick<SchedulerStats, "running" | "waiting" | "pages">;
}

/** Always 200: an unready service must not be killed for it. */
export function healthAnswer(state: ServiceState): Response {
  return Response.json({ status: "ok", ...details(state) });
}

/** 200 only when the group is whole and not draining, else 503 with advice when to ask again. */
export function readyAnswer(state: ServiceState): Response {
  if (state.group.kind === "ready" && !state.draining) return Response.json({ status: "ready", ...details(state) });
  const { status, headers, body } = describeError(refusalOf(state));
  return Response.json({ ...body, status: "unready", ...details(state) }, { status, headers });
}

/** Why a service that serves no model now takes no requests: `draining`, `loading`, `group_unavailable`. */
export function refusalOf({ group, draining }: Pick<ServiceState, "group" | "draining">): RequestError {
  if (draining) return new RequestError("draining", "Cannot take requests: the service is stopping");
  if (group.kind === "loading") return new RequestError("loading", "Cannot take requests: the model is still loading");
  return new RequestError("group_unavailable", "Cannot take requests: the workers are not all there");
}

function details({ group, members, draining, scheduler: { running, waiting, pages } }: ServiceState) {
  return {
    group: group.kind,
    ...(group.kind === "loading" ? { progress: group.progress } : {}),
    ...(group.kind === "loading" && group.reason !== undefined ? { reason: group.reason } : {}),
    ...(group.kind === "ready" ? groupDetails(group) : {}),
    members,
    draining,
    queue: { running, waiting },
    // What the prefix cache alone holds, it gives away when asked.
    free_tokens: (pages.free + pages.cached) * PAGE_TOKENS,
  };
}

/** Of the group as it is now: a worker that is gone for good is not there, and the longest context is shorter. */
function groupDetails({ epoch, model }: Extract<GroupState, { kind: "ready" }>) {
  const { id, kvPages, slices, adapters } = model;
  return {
    epoch,
    model: id,
    workers: slices.map((pages, i) => ({ adapter: adapters[i] ?? null, capacity_tokens: pages * PAGE_TOKENS })),
    capacity_tokens: kvPages * PAGE_TOKENS,
    max_context_tokens: longestContext(model),
  };
}
