/**
 * What a scheduler could do for requests that may come, or go: what one group has over another when a request may run on
 * either. Knows sequences, pages and predicted time; knows nothing of other schedulers.
 */

import { PAGE_TOKENS, pagesFor } from "../../engine/span.ts";
import type { Group } from "../group/group.ts";
import { unsuitable } from "./admission.ts";
import { contextOf, type CostModel, NO_LOAD } from "./cost_model.ts";
import type { PageLedger } from "./page_ledger.ts";
import type { PageKey } from "./prefix_cache.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";

/** What is known of a request before it has a sequence here. */
export interface Newcomer {
  /** Known tokens: the prompt, and what was drawn already. */
  readonly tokens: number;
  readonly cacheSalt: string;
  /** Of its full pages. */
  readonly keys: Iterable<PageKey>;
}

/** What a newcomer would find. */
export interface Prospect {
  /** Of its first tokens, how many the prefix cache holds. */
  readonly cachedTokens: number;
  /** Tokens that others here have still to read before they decode. */
  readonly unreadTokens: number;
  /** Sequences that run or wait here. */
  readonly sequences: number;
  /** Pages that no one has been promised; below 0 when more are waited for than there are. */
  readonly freePages: number;
  /** Whether it would start at once, after all that wait already. */
  readonly hasRoom: boolean;
}

/** What an outlook is taken from. */
export interface OutlookParts {
  readonly group: Pick<Group, "state">;
  readonly roster: Roster;
  readonly costs: CostModel;
  /** Undefined while the group is not ready: nothing is cached then, and nothing has room. */
  readonly ledger: () => PageLedger | undefined;
  readonly maxBatch: number;
}

/** See the top of this file. */
export class Outlook {
  readonly #parts: OutlookParts;

  constructor(parts: OutlookParts) {
    this.#parts = parts;
  }

  /** Sequences that hold nothing on any worker, by rank. */
  get waiting(): readonly Sequence[] {
    return this.#parts.roster.waiting;
  }

  /** Whether a choice of a request runs or waits here. */
  serves(requestId: string): boolean {
    const { running, waiting } = this.#parts.roster;
    return [...running, ...waiting].some(({ request }) => request.requestId === requestId);
  }

  /** What a request that came now would find. */
  for({ tokens, cacheSalt, keys }: Newcomer): Prospect {
    const { roster: { running, waiting }, maxBatch } = this.#parts;
    const ledger = this.#parts.ledger();
    const cachedTokens = ledger?.cachedTokens(cacheSalt, keys) ?? 0;
    const awaited = waiting.reduce((pages, { length }) => pages + pagesFor(length + 1), 0);
    const freePages = (ledger?.pagesBeside(running) ?? 0) - awaited;
    const missing = pagesFor(tokens + 1) - cachedTokens / PAGE_TOKENS;
    const sequences = running.length + waiting.length;
    return {
      cachedTokens,
      unreadTokens: [...running, ...waiting].reduce((sum, sequence) => sum + unreadOf(sequence), 0),
      sequences,
      freePages,
      hasRoom: ledger !== undefined && sequences < maxBatch && freePages >= missing,
    };
  }

  /** Whether a waiting sequence will start with the next step, unless others go before it. */
  startsSoon(sequence: Sequence): boolean {
    const { roster: { running }, maxBatch } = this.#parts;
    return running.length < maxBatch && this.#parts.ledger()?.canAdmit(sequence, running) === true;
  }

  /** Predicted time to read tokens of a prompt alone, from a position on, in milliseconds. */
  readMs(from: number, tokens: number): number {
    const prefillContext = contextOf(from, tokens);
    return this.#parts.costs.predictMs({ ...NO_LOAD, kinds: ["prefill"], prefillRows: tokens, prefillContext });
  }

  /** Whether a sequence that began elsewhere can go on here. */
  canTake(sequence: Sequence): boolean {
    const { state } = this.#parts.group;
    return state.kind === "ready" && unsuitable(sequence, state.model) === undefined;
  }
}

/** Tokens that a sequence has still to read; the one drawn last belongs to decoding. */
function unreadOf({ length, cached, generated }: Sequence): number {
  return Math.max(0, length - cached - (generated > 0 ? 1 : 0));
}
