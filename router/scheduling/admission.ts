/**
 * What is refused on arrival: requests that would never be able to run. Knows the model's bounds and the group's state;
 * decides nothing about who runs.
 */

import { longestContext, longestOnSlices } from "./capacity.ts";
import { RequestError } from "../errors.ts";
import type { GenerationRequest } from "./generation.ts";
import { type GroupState, type ModelInfo, modelInService } from "../group/group.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";

/**
 * The model that is served; a group that forms again is waited for.
 * @throws {RequestError} `loading`, `group_unavailable`
 */
export function readyModel(state: GroupState): ModelInfo {
  const model = modelInService(state);
  if (model !== undefined) return model;
  if (state.kind === "loading") {
    const percent = Math.floor(100 * state.progress);
    throw new RequestError("loading", `Cannot admit request: the model is loading (${percent} %)`);
  }
  const reason = state.kind === "broken" ? "the workers failed for good" : "the group is closed";
  throw new RequestError("group_unavailable", `Cannot admit request: ${reason}`);
}

/**
 * Checks that a request could run alone.
 * @throws {RequestError} `context_length_exceeded`, `invalid_request`
 */
export function checkFits(request: GenerationRequest, model: ModelInfo): void {
  const { promptTokens, maxTokens } = request;
  const asked = `${promptTokens.length} prompt tokens + ${maxTokens} to generate`;
  if (promptTokens.length < 1 || !(maxTokens >= 1)) {
    throw new RequestError("invalid_request", `Cannot admit request: ${asked}, at least 1 of each is needed`);
  }
  const total = promptTokens.length + maxTokens;
  const capacity = longestOnSlices(model.slices);
  if (total > Math.min(model.maxPositions, capacity)) {
    const bound = capacity < model.maxPositions
      ? `KV capacity of ${capacity} tokens`
      : `context of ${model.maxPositions} tokens`;
    throw new RequestError("context_length_exceeded", `Cannot admit request: ${asked} exceed the ${bound}`);
  }
  // A step with an unknown token would be refused, and with it every other sequence in the step.
  const unknown = promptTokens.find((token) => token >= model.vocabSize);
  if (unknown !== undefined) {
    const message = `Cannot admit request: token ${unknown} is outside the vocabulary of ${model.vocabSize}`;
    throw new RequestError("invalid_request", message, { param: "prompt" });
  }
}

/**
 * Checks that the queue has room. Free places to run do not count, and a sequence that ran before keeps its place.
 * A request of many choices may take half of what is free, so that a few of them cannot lock all others out.
 * @param choices sequences of the request
 * @throws {RequestError} `queue_full`
 */
export function checkQueue(
  choices: number,
  { waiting, running }: Roster,
  { maxBatch, maxQueued }: { readonly maxBatch: number; readonly maxQueued: number },
): void {
  const fresh = waiting.filter((sequence) => sequence.cachedTokens === undefined).length;
  const idle = Math.max(0, maxBatch - running.filter((sequence) => !sequence.paused).length);
  const free = maxQueued + idle - fresh;
  const queued = Math.max(0, fresh - idle);
  if (free < 1) {
    throw new RequestError(
      "queue_full",
      `Cannot admit request: ${queued} wait already beside ${maxBatch} that run, at most ${maxQueued} may`,
    );
  }
  const most = Math.max(1, Math.floor(free / 2));
  if (choices <= most) return;
  throw new RequestError(
    "queue_full",
    `Cannot admit request: ${choices} choices exceed the ${most} that one request may have while ${free} places are free`,
  );
}

/** Why a sequence cannot go on with a group that came back, or with another one, if so. */
export function unsuitable({ model, request }: Sequence, now: ModelInfo): string | undefined {
  if (model.digest !== now.digest) return "the group came back with another model";
  const { promptTokens, maxTokens } = request;
  const longest = longestContext(now);
  if (promptTokens.length + maxTokens <= longest) return undefined;
  const asked = `${promptTokens.length} prompt tokens + ${maxTokens} to generate`;
  return `${asked} exceed the context of ${longest} tokens that the group came back with`;
}

/** Why a request ends with the service. @param when behind the message, if there is more to say */
export function shutDown(when = ""): RequestError {
  return new RequestError("draining", `Cannot finish request: the service shuts down${when}`);
}

/** Why a request that waited for so long leaves the queue. */
export function waitedTooLong(queueTimeoutMs: number): RequestError {
  return new RequestError(
    "queue_timeout",
    `Cannot admit request: it waited ${queueTimeoutMs} ms for its turn, as long as requests may`,
  );
}
