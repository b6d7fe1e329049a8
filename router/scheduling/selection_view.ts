/**
 * Which positions were chosen last for the sequences that clients know by their response ids. Knows which sequence of the
 * group stands for which request, for those that run and some that ended recently; the selections themselves are
 * remembered by the group.
 */

import type { SequenceId } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import type { ChosenPositions, Group } from "../group/group.ts";
import { Tides } from "./tide.ts";
import { TideFeed } from "./tide_feed.ts";

/** A look at one sequence. */
export interface SequenceSelection {
  readonly running: boolean;
  /** By layer; empty while all its rows attend to everything. */
  readonly layers: readonly ChosenPositions[];
}

/** What the HTTP side asks. */
export interface SelectionReader {
  /**
   * @param request id of a single generation
   * @returns undefined when no such request is running or ended recently
   * @throws {RequestError} `selection_unavailable` when the group does not let its selections be seen
   */
  read(request: string): SequenceSelection | undefined;
  /**
   * Follows a sequence from now on; the feed must be read or left. That of one that ended recently is empty.
   * @param request id of a single generation
   * @returns undefined when no such request is running or ended recently
   * @throws {RequestError} `rate_limit_exceeded` when too many watch
   */
  watch(request: string): TideFeed | undefined;
}

/** Requests that are remembered after their end. */
const ENDED = 256;

/** Kept up to date by the scheduler. */
export class SelectionView implements SelectionReader {
  /** The sequences that are watched. */
  readonly tides: Tides;
  readonly #group: Pick<Group, "state" | "selections">;
  readonly #running = new Map<string, SequenceId | undefined>();
  /** In the order in which they ended. */
  readonly #ended = new Map<string, SequenceId | undefined>();

  constructor(group: Pick<Group, "state" | "selections">) {
    this.#group = group;
    this.tides = new Tides(group);
  }

  /** A request runs, or runs again, under this name; undefined before its first time. */
  name(request: string, sequence: SequenceId | undefined): void {
    this.#running.set(request, sequence);
  }

  /** A request goes on with another scheduler; those who watch it go along. */
  handOver(request: string, to: SelectionView): void {
    this.#running.delete(request);
    to.name(request, undefined);
    this.tides.handOver(request, to.tides);
  }

  /** A request is over. */
  end(request: string): void {
    this.#ended.set(request, this.#running.get(request));
    this.#running.delete(request);
    this.tides.end(request);
    const [oldest] = this.#ended.keys();
    if (oldest !== undefined && this.#ended.size > ENDED) this.#ended.delete(oldest);
  }

  read(request: string): SequenceSelection | undefined {
    const running = this.#running.has(request);
    if (!running && !this.#ended.has(request)) return undefined;
    const sequence = running ? this.#running.get(request) : this.#ended.get(request);
    const layers = sequence === undefined ? [] : this.#group.selections?.of(sequence) ?? [];
    if (layers.length === 0) this.#requireVisible();
    return { running, layers };
  }

  watch(request: string): TideFeed | undefined {
    if (this.#running.has(request)) return this.tides.watch(request);
    return this.#ended.has(request) ? TideFeed.ended() : undefined;
  }

  #requireVisible(): void {
    const { state } = this.#group;
    if (state.kind !== "ready" || state.model.slices.length > 1) return;
    throw new RequestError(
      "selection_unavailable",
      "Cannot show the selection: unsupported in a group of one worker, whose selections stay on its GPU unless the " +
        "sequence is watched (GET /v1/sequences/{id}/tide)",
    );
  }
}
