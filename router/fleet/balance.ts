/**
 * Takes sequences that wait in one group to another that can start them at once: those whose group was lost, and those that
 * have waited as long as reading again what only their group has cached would take. Knows groups and waiting sequences.
 */

import type { Sequence } from "../scheduling/sequence.ts";
import { areAlike, type FleetGroup } from "./fleet_group.ts";
import { type Candidate, inOrder } from "./routing.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";
import type { Newcomer } from "../scheduling/outlook.ts";

/** Between two looks, while any sequence is there. */
const LOOK_EVERY_MS = 50;

/** Waiting sequences of a group that are looked at, by rank: the others have no better chance. */
const MAX_LOOKED_AT = 16;

/** Looks while sequences are there; `close` must be called. */
export class Balance {
  readonly #groups: readonly FleetGroup[];
  #timer: ReturnType<typeof setInterval> | undefined;
  #isClosed = false;

  constructor(groups: readonly FleetGroup[]) {
    this.#groups = groups;
  }

  /** A request has come: looks again and again until none is left. */
  start(): void {
    if (this.#groups.length === 1 || this.#isClosed) return;
    this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** Takes a sequence to another group, with room or without. @returns whether there is one that can go on with it */
  rescue(sequence: Sequence, from: FleetGroup): boolean {
    if (this.#isClosed) return false;
    const others = this.#others(from).filter(({ scheduler }) => scheduler.outlook.canTake(sequence));
    const alike = others.filter((other) => isLike(other, sequence));
    const to = this.#first(sequence, alike.length > 0 ? alike : others);
    if (to !== undefined) from.scheduler.handOver(sequence, to.scheduler);
    return to !== undefined;
  }

  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const from of this.#groups) {
      for (const sequence of from.scheduler.outlook.waiting.slice(0, MAX_LOOKED_AT)) {
        const to = this.#destination(sequence, from);
        if (to !== undefined) from.scheduler.handOver(sequence, to.scheduler);
      }
    }
    if (this.#groups.some(({ scheduler }) => scheduler.isBusy)) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Where a waiting sequence goes, if it should not stay. */
  #destination(sequence: Sequence, from: FleetGroup): FleetGroup | undefined {
    const { state } = from.group;
    // A group that changes on purpose is back in a moment.
    if (state.kind === "loading" && state.isPlanned) return undefined;
    const { outlook } = from.scheduler;
    if (state.kind === "ready" && outlook.startsSoon(sequence)) return undefined;
    const newcomer = newcomerOf(sequence);
    const to = this.#first(
      sequence,
      this.#others(from).filter((other) =>
        other.scheduler.outlook.canTake(sequence) && isLike(other, sequence) &&
        other.scheduler.outlook.for(newcomer).hasRoom
      ),
    );
    if (to === undefined || state.kind !== "ready") return to;
    const { cachedTokens } = to.scheduler.outlook.for(newcomer);
    const saved = outlook.for(newcomer).cachedTokens - cachedTokens;
    if (saved <= 0) return to;
    const waitedMs = performance.now() - sequence.queuedAtMs;
    return waitedMs >= to.scheduler.outlook.readMs(cachedTokens, saved) ? to : undefined;
  }

  #others(from: FleetGroup): readonly FleetGroup[] {
    return this.#groups.filter((group) => group !== from);
  }

  #first(sequence: Sequence, groups: readonly FleetGroup[]): FleetGroup | undefined {
    const newcomer = newcomerOf(sequence);
    const candidates = groups.map((group) => candidateOf(group, newcomer, sequence.request.requestId));
    const [first] = inOrder(newcomer.tokens, candidates);
    return groups.find(({ index }) => index === first?.index);
  }
}

/** What a request would find in a group. */
export function candidateOf({ index, scheduler }: FleetGroup, newcomer: Newcomer, requestId: string): Candidate {
  return { index, hasSiblings: scheduler.outlook.serves(requestId), ...scheduler.outlook.for(newcomer) };
}

/** Whether a sequence goes on in a group as it would have in its own; one that has drawn nothing is bound to none. */
function isLike({ group: { state } }: FleetGroup, { generated, model }: Sequence): boolean {
  return generated === 0 || (state.kind === "ready" && areAlike(state.model, model));
}

/** What of a sequence another prefix cache may hold: rows that full attention computed. */
function newcomerOf(sequence: Sequence): Newcomer {
  const positions = Math.min(sequence.length - 1, sequence.restorable);
  return {
    tokens: sequence.length,
    cacheSalt: sequence.request.cacheSalt,
    keys: sequence.keys(Math.floor(positions / PAGE_TOKENS)),
  };
}
