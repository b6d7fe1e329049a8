/**
 * The tide: which positions a running sequence reads, row by row, for those who watch it. Costs nothing while no one does:
 * on a worker alone only a watched sequence has its selections read from the GPU, and not more often than a watcher can follow.
 */

import { recentOf, SINKS } from "../../engine/layer_plan.ts";
import { PageMap } from "../../engine/page_map.ts";
import { PAGE_TOKENS, type SequenceId, type Span } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import type { Group } from "../group/group.ts";
import type { Sequence } from "./sequence.ts";
import type { PlannedSpan } from "./step_planner.ts";
import type { TideLayout, TideRow } from "./tide_event.ts";
import { TideFeed } from "./tide_feed.ts";

/** Watchers of one sequence, and of all together. */
const MAX_FEEDS_OF_ONE = 4;
const MAX_FEEDS = 32;

/** A sequence that is watched. */
interface Watched {
  /** Of the scheduler that it is with. */
  tides: Tides;
  readonly feeds: Set<TideFeed>;
  /** Under which it was described last. */
  described: SequenceId | undefined;
}

/** All watched sequences of a scheduler, by the names of their requests. */
export class Tides {
  readonly #group: Pick<Group, "state" | "selections">;
  readonly #watched = new Map<string, Watched>();
  /** Spans under way whose rows will be shown. */
  readonly #asked = new WeakSet<PlannedSpan>();

  constructor(group: Pick<Group, "state" | "selections">) {
    this.#group = group;
  }

  /**
   * Watches a request that is queued or runs.
   * @returns to be read or closed; it ends with the request
   * @throws {RequestError} `rate_limit_exceeded` when too many watch
   */
  watch(request: string): TideFeed {
    const watched: Watched = this.#watched.get(request) ?? { tides: this, feeds: new Set(), described: undefined };
    const all = [...this.#watched.values()].reduce((sum, { feeds }) => sum + feeds.size, 0);
    if (watched.feeds.size >= MAX_FEEDS_OF_ONE || all >= MAX_FEEDS) {
      throw new RequestError(
        "rate_limit_exceeded",
        `Cannot watch the sequence: ${watched.feeds.size} watch it and ${all} watch any, ` +
          `at most ${MAX_FEEDS_OF_ONE} and ${MAX_FEEDS} may`,
      );
    }
    const feed = new TideFeed(() => {
      watched.feeds.delete(feed);
      if (watched.feeds.size === 0) watched.tides.#watched.delete(request);
    });
    watched.feeds.add(feed);
    // The next row describes the sequence to the newcomer, and to the others once more.
    watched.described = undefined;
    this.#watched.set(request, watched);
    return feed;
  }

  /**
   * The spans of a step as the workers get them: those whose rows will be shown report what was chosen, and in a group of
   * several workers all do, as its selections may be looked at afterwards.
   */
  asked(plan: readonly PlannedSpan[]): readonly Span[] {
    const { state } = this.#group;
    const areVisible = state.kind === "ready" && state.model.slices.length > 1;
    return plan.map((planned) => {
      const isShown = this.#isShown(planned);
      if (isShown) this.#asked.add(planned);
      const { work, span } = planned;
      return work.kind === "sparse" && (isShown || areVisible) ? { ...span, reportsSelection: true } : span;
    });
  }

  /** Whether watchers will be shown the rows; they are told that something comes. */
  #isShown({ sequence, work }: PlannedSpan): boolean {
    const watched = this.#watched.get(sequence.request.id);
    if (watched === undefined || work.kind === "prefill" || work.kind === "rebuild") return false;
    // All watchers are shown rows at the same times; a newcomer is shown one at once, and so are the others.
    if (![...watched.feeds].some((feed) => feed.waitMs === 0)) return false;
    for (const feed of watched.feeds) feed.ask();
    return true;
  }

  /** A step has run: passes on what was asked for. */
  computed(plan: readonly PlannedSpan[]): void {
    if (this.#watched.size === 0) return;
    for (const planned of plan) {
      const { sequence, work } = planned;
      const watched = this.#watched.get(sequence.request.id);
      if (watched === undefined || work.kind === "prefill" || work.kind === "rebuild") continue;
      this.#describe(watched, sequence);
      const row = this.#asked.has(planned) ? this.#rowOf(planned) : undefined;
      for (const feed of watched.feeds) {
        if (row === undefined) feed.skip();
        else feed.push(row);
      }
    }
  }

  /** A request goes on with another scheduler, and those who watch it along with it. */
  handOver(request: string, to: Tides): void {
    const watched = this.#watched.get(request);
    if (watched === undefined) return;
    this.#watched.delete(request);
    watched.tides = to;
    // Its number here may be another sequence's there.
    watched.described = undefined;
    to.#watched.set(request, watched);
  }

  /** A request is over: its watchers get what is left, and then the end. */
  end(request: string): void {
    for (const feed of this.#watched.get(request)?.feeds ?? []) feed.end();
    this.#watched.delete(request);
  }

  #rowOf({ sequence, work: { kind, from, rows } }: PlannedSpan): Omit<TideRow, "skipped"> {
    const attention = kind === "correction" || kind === "sparse" ? kind : "dense";
    const chosen = attention === "sparse" && sequence.id !== undefined ? this.#group.selections?.of(sequence.id) : [];
    return {
      kind: "row",
      position: from,
      rows,
      attention,
      layers: chosen?.filter(({ position }) => position === from) ?? [],
    };
  }

  #describe(watched: Watched, sequence: Sequence): void {
    const { state } = this.#group;
    const { id, pageOffset, request } = sequence;
    if (id === undefined || watched.described === id || state.kind !== "ready") return;
    watched.described = id;
    const { model } = state;
    const { sparse } = sequence.open(id);
    const map = new PageMap(model.slices);
    const layout: TideLayout = {
      kind: "layout",
      promptTokens: request.promptTokens.length,
      pageTokens: PAGE_TOKENS,
      owners: Array.from({ length: map.period }, (_, page) => map.owner(pageOffset, page)),
      layers: model.layers,
      selectLayers: model.selectLayers,
      sparse,
      sinks: SINKS,
      recent: recentOf(sparse),
    };
    for (const feed of watched.feeds) feed.push(layout);
  }
}
