/**
 * The fate of a service's groups, as promises: when the model is served for the first time, and when it never will be
 * again. One group is enough to serve. Knows states of groups; knows nothing of requests.
 */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import type { GroupState, ModelInfo } from "../group/group.ts";
import type { WorkerGroup } from "../group/worker_group.ts";
import { copiedContext, longestContext } from "../scheduling/capacity.ts";
import type { ServedModel, ServedWorker, Service } from "../service.ts";
import { sum } from "../sum.ts";
import { hasOtherModel, modelOfAll } from "./fleet_group.ts";

/** What to look for. */
export interface ReadinessOptions {
  /** That the first group must hold when it is ready first. */
  readonly contextTokens: number;
  readonly onProgress: (fraction: number) => void;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
}

/** Of groups that hold too little. */
const REMEDY = "--context auto takes what fits; quantised weights (--quantize) or more workers leave more";

/** How long the first group that is ready is not announced while others load: they are mostly about as fast. */
const GATHER_MS = 5000;

/** A group as far as it is followed. */
export type FollowedGroup = Pick<WorkerGroup, "state" | "members" | "onState">;

/** Follows groups until they are closed. */
export function follow(
  groups: readonly FollowedGroup[],
  { contextTokens, onProgress, log }: ReadinessOptions,
): Pick<Service, "ready" | "broken"> {
  const ready = Promise.withResolvers<ServedModel>();
  const broken = Promise.withResolvers<string>();
  // Callers that only drain never await it; `broken` reports a failed worker too.
  ready.promise.catch(() => "`broken` reports it too");
  let gathering: ReturnType<typeof setTimeout> | undefined;
  const fail = (reason: string) => {
    broken.resolve(reason);
    ready.reject(new RequestError("group_unavailable", `Cannot serve: ${reason}`));
  };
  let isAnnounced = false;
  const announce = () => {
    clearTimeout(gathering);
    gathering = undefined;
    const model = served(groups);
    // The group that was ready may be lost by now.
    if (model === undefined) return;
    isAnnounced = true;
    if (model.contextTokens >= contextTokens) return ready.resolve(model);
    fail(`a context of ${contextTokens} tokens does not fit: the workers hold ${model.contextTokens}; ${REMEDY}`);
  };
  const consider = (group: number, state: GroupState) => {
    const states = groups.map((each) => each.state);
    if (state.kind === "closed") {
      clearTimeout(gathering);
      ready.reject(new RequestError("draining", "Cannot serve: the service was stopped"));
    } else if (state.kind === "broken") {
      if (states.every(({ kind }) => kind === "broken")) fail(state.reason);
      else log(`Group ${group} has failed for good, and the others go on: ${state.reason}`);
    } else if (state.kind === "loading") onProgress(progressOf(states));
    else if (hasOtherModel(state, states)) {
      log(
        `Group ${group} gets no requests: it has loaded another model (digest ${state.model.digest}) than the others`,
      );
    }
    // One that comes back smaller goes on with shorter contexts.
    if (isAnnounced || !states.some(({ kind }) => kind === "ready")) return;
    if (states.every(({ kind }) => kind !== "loading")) announce();
    else gathering ??= setTimeout(announce, GATHER_MS);
  };
  groups.forEach((group, index) => group.onState((state) => consider(index, state)));
  return { ready: ready.promise, broken: broken.promise };
}

function progressOf(states: readonly GroupState[]): number {
  return sum(states, (state) => state.kind === "loading" ? state.progress : 1) / states.length;
}

/** What the groups that are ready serve together. */
function served(groups: readonly FollowedGroup[]): ServedModel | undefined {
  const ready = groups.flatMap((group, index) =>
    group.state.kind === "ready" ? [{ group, index, model: group.state.model }] : []
  );
  const model = modelOfAll(ready.map(({ group }) => group.state));
  if (model === undefined) return undefined;
  const { id, parameters, adapter } = model;
  const copied = copiedContext(model);
  return {
    id,
    parameters,
    adapter,
    software: ready.some(({ model: { software } }) => software),
    kvTokens: sum(ready, ({ model: { kvPages } }) => kvPages * PAGE_TOKENS),
    contextTokens: longestContext(model),
    ...(copied === undefined ? {} : { copiedContextTokens: copied }),
    workers: ready.flatMap(({ group, index, model }) =>
      workersOf(group, model).map((worker) => groups.length === 1 ? worker : { ...worker, group: index })
    ),
  };
}

function workersOf({ members }: FollowedGroup, { slices, adapters, adapter }: ModelInfo): readonly ServedWorker[] {
  const places = members.found.filter(({ state }) => state === "present").map(({ place }) => place);
  return slices.map((pages, i) => {
    const place = places[i];
    return {
      adapter: adapters[i] ?? adapter,
      kvTokens: pages * PAGE_TOKENS,
      ...(place === undefined ? {} : { place }),
    };
  });
}
