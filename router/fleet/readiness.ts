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
  options: ReadinessOptions,
): Pick<Service, "ready" | "broken"> {
  const fate = new Fate(groups, options);
  groups.forEach((group, index) => group.onState((state) => fate.consider(index, state)));
  return { ready: fate.ready, broken: fate.broken };
}

class Fate {
  readonly #groups: readonly FollowedGroup[];
  readonly #options: ReadinessOptions;
  readonly #ready = Promise.withResolvers<ServedModel>();
  readonly #broken = Promise.withResolvers<string>();
  #gathering: ReturnType<typeof setTimeout> | undefined;
  #isAnnounced = false;

  constructor(groups: readonly FollowedGroup[], options: ReadinessOptions) {
    this.#groups = groups;
    this.#options = options;
    // Callers that only drain never await it; `broken` reports a failed worker too.
    this.#ready.promise.catch(() => "`broken` reports it too");
  }

  get ready(): Promise<ServedModel> {
    return this.#ready.promise;
  }

  get broken(): Promise<string> {
    return this.#broken.promise;
  }

  /** Takes the new state of a group. */
  consider(group: number, state: GroupState): void {
    const states = this.#groups.map((each) => each.state);
    this.#tell(group, state, states);
    // One that comes back smaller goes on with shorter contexts.
    if (this.#isAnnounced || !states.some(({ kind }) => kind === "ready")) return;
    if (states.every(({ kind }) => kind !== "loading")) this.#announce();
    else this.#gathering ??= setTimeout(() => this.#announce(), GATHER_MS);
  }

  /** Says what the state means for the service, and for the operator. */
  #tell(group: number, state: GroupState, states: readonly GroupState[]): void {
    const { log, onProgress } = this.#options;
    if (state.kind === "closed") {
      clearTimeout(this.#gathering);
      this.#ready.reject(new RequestError("draining", "Cannot serve: the service was stopped"));
    } else if (state.kind === "broken") {
      if (states.every(({ kind }) => kind === "broken")) this.#fail(state.reason);
      else log(`Group ${group} has failed for good, and the others go on: ${state.reason}`);
    } else if (state.kind === "loading") onProgress(progressOf(states));
    else if (hasOtherModel(state, states)) {
      const loaded = `it has loaded another model (digest ${state.model.digest}) than the others`;
      log(`Group ${group} gets no requests: ${loaded}`);
    }
  }

  #announce(): void {
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    const model = served(this.#groups);
    // The group that was ready may be lost by now.
    if (model === undefined) return;
    this.#isAnnounced = true;
    const { contextTokens } = this.#options;
    if (model.contextTokens >= contextTokens) return this.#ready.resolve(model);
    this.#fail(`a context of ${contextTokens} tokens does not fit: the workers hold ${model.contextTokens}; ${REMEDY}`);
  }

  #fail(reason: string): void {
    this.#broken.resolve(reason);
    this.#ready.reject(new RequestError("group_unavailable", `Cannot serve: ${reason}`));
  }
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
