/**
 * Groups that serve the same model, as one: HTTP asks here as it would ask the scheduler of a single group. A request goes
 * where it is answered soonest, and to another group when its own is lost.
 * Knows groups and their schedulers, which know nothing of each other; knows nothing of workers.
 */

import { at } from "../../kernels/at.ts";
import { CodedError } from "../../kernels/errors.ts";
import { RequestError } from "../errors.ts";
import type { Group, ModelInfo } from "../group/group.ts";
import { longestContext } from "../scheduling/capacity.ts";
import type { Generation, GenerationRequest, Generator } from "../scheduling/generation.ts";
import { PageKeys } from "../scheduling/prefix_cache.ts";
import { Scheduler } from "../scheduling/scheduler.ts";
import { counter, type SchedulerOptions } from "../scheduling/scheduler_options.ts";
import type { SelectionReader, SequenceSelection } from "../scheduling/selection_view.ts";
import type { TideFeed } from "../scheduling/tide_feed.ts";
import { Balance, candidateOf } from "./balance.ts";
import { byReadiness, type FleetGroup, hasOtherModel, modelOfAll } from "./fleet_group.ts";
import { inOrder } from "./routing.ts";

/** What one group refuses a request with that another may take. */
const REFUSALS_OF_ONE: readonly string[] = ["queue_full", "loading", "group_unavailable", "context_length_exceeded"];

/** See the top of this file. */
export class Fleet<AnyGroup extends Group = Group> implements Generator, SelectionReader {
  /** In their order; at least one. */
  readonly groups: readonly FleetGroup<AnyGroup>[];
  readonly #balance: Balance;

  /**
   * @param groups at least one; not closed by the fleet
   * @param optionsOf of the scheduler of each
   */
  constructor(groups: readonly AnyGroup[], optionsOf: (index: number) => SchedulerOptions = () => ({})) {
    const arrivals = counter();
    this.groups = groups.map((group, index) => {
      const member: FleetGroup<AnyGroup> = {
        index,
        group,
        scheduler: new Scheduler(group, {
          ...optionsOf(index),
          arrivals,
          onAbandoned: (sequence) => this.#balance.rescue(sequence, member),
        }),
      };
      return member;
    });
    this.#balance = new Balance(this.groups);
  }

  /** What is served; undefined before any group has loaded it. */
  get model(): ModelInfo | undefined {
    return modelOfAll(this.groups.map(({ group }) => group.state));
  }

  /**
   * Asks the groups in the order of the routing rule, those that run steps first.
   * @throws {RequestError} what the first of them refused it with, when all did
   */
  generate(request: GenerationRequest): Generation {
    this.#balance.start();
    let refusal: CodedError | undefined;
    for (const member of this.#inOrder(request)) {
      try {
        return member.scheduler.generate(fitted(request, member.group));
      } catch (error) {
        if (!(error instanceof CodedError) || !REFUSALS_OF_ONE.includes(error.code)) throw error;
        refusal ??= error;
      }
    }
    throw refusal ?? new RequestError("group_unavailable", "Cannot admit request: there is no group");
  }

  read(request: string): SequenceSelection | undefined {
    return this.#firstThat(({ scheduler }) => scheduler.selections.read(request));
  }

  watch(request: string): TideFeed | undefined {
    return this.#firstThat(({ scheduler }) => scheduler.selections.watch(request));
  }

  /** Drains all groups; a sequence whose group is lost meanwhile may still go on in another. See `Scheduler.drain`. */
  async drain(deadlineMs: number): Promise<void> {
    const endMs = performance.now() + deadlineMs;
    do {
      const leftMs = Math.max(0, endMs - performance.now());
      await Promise.all(this.groups.map(({ scheduler }) => scheduler.drain(leftMs)));
    } while (this.groups.some(({ scheduler }) => scheduler.isBusy));
  }

  /** See `Scheduler.close`. */
  async close(): Promise<void> {
    this.#balance.close();
    await Promise.all(this.groups.map(({ scheduler }) => scheduler.close()));
  }

  /** See `Scheduler.check`. */
  check(): void {
    for (const { scheduler } of this.groups) scheduler.check();
  }

  #inOrder({ promptTokens, cacheSalt, requestId }: GenerationRequest): readonly FleetGroup[] {
    const newcomer = { tokens: promptTokens.length, cacheSalt, keys: new PageKeys(promptTokens) };
    const states = this.groups.map(({ group }) => group.state);
    const candidates = this.groups
      .filter(({ group }) => !hasOtherModel(group.state, states))
      .map((member) => candidateOf(member, newcomer, requestId));
    return inOrder(newcomer.tokens, candidates)
      .map(({ index }) => at(this.groups, index))
      .sort((a, b) => byReadiness(a.group.state, b.group.state));
  }

  #firstThat<Found>(find: (member: FleetGroup) => Found | undefined): Found | undefined {
    for (const member of this.groups) {
      const found = find(member);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** A request whose length was left open, as long as a group holds it. */
function fitted(request: GenerationRequest, { state }: Group): GenerationRequest {
  if (request.isMaxTokensOpen !== true || state.kind !== "ready") return request;
  const room = longestContext(state.model) - request.promptTokens.length;
  return room < 1 ? request : { ...request, maxTokens: Math.min(request.maxTokens, room) };
}
