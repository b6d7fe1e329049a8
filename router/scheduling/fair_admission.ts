/**
 * Which waiting sequences may start now, beside those that run. A request that has nothing running may start where others
 * have several sequences, and one that waits for pages is overtaken for a while, but not forever. Takes pages back from
 * sequences only through the roster; plans no step.
 */

import type { PageLedger } from "./page_ledger.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";

/** Sequences that a worker can hold at a time, paused ones included. */
const MAX_OPEN = 256;

/** Requests found not to fit in one step: looking at all that wait would take longer than the step. */
const MAX_REFUSALS = 16;

/** What an admission looks at and changes. */
export interface AdmissionParts {
  readonly roster: Roster;
  readonly ledger: PageLedger;
  readonly maxBatch: number;
  /** How long others may start before a sequence that waits for pages, in milliseconds. */
  readonly maxBypassMs: number;
  /** Whether a running sequence is in the step already, and so cannot lose its pages. */
  readonly isPlanned: (sequence: Sequence) => boolean;
  readonly preempt: (sequence: Sequence) => void;
}

/** The admissions of one step. */
export class FairAdmission {
  readonly #parts: AdmissionParts;
  readonly #nowMs = performance.now();
  /** The one that was overtaken long enough: pages that become free are kept for it. */
  readonly #overtaken: Sequence | undefined;
  /** Requests with a sequence that did not fit in this step. */
  readonly #refused = new Set<string>();

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
    this.#overtaken = parts.roster.waiting.find(({ blockedAtMs = Infinity }) =>
      this.#nowMs - blockedAtMs >= parts.maxBypassMs
    );
  }

  /** Starts a waiting sequence if it may and fits. @returns whether it runs now */
  admit(sequence: Sequence): boolean {
    const { roster, ledger } = this.#parts;
    if (!this.#mayStart(sequence)) return false;
    while (roster.running.length >= MAX_OPEN || !ledger.canAdmit(sequence, roster.running)) {
      const victim = roster.running.findLast((other) => other.paused) ?? this.#victimFor(sequence);
      if (victim === undefined) {
        this.#refused.add(sequence.request.requestId);
        sequence.blockedAtMs ??= this.#nowMs;
        return false;
      }
      this.#parts.preempt(victim);
    }
    roster.admit(sequence, ledger);
    return true;
  }

  #mayStart(sequence: Sequence): boolean {
    if (this.#overtaken !== undefined && this.#overtaken !== sequence) return false;
    if (this.#refused.size >= MAX_REFUSALS || this.#refused.has(sequence.request.requestId)) return false;
    const { maxBatch } = this.#parts;
    const active = this.#active();
    if (active.length < maxBatch) return true;
    // Beyond the batch sequences take turns: the one that is let in costs each of the others a little.
    return active.length < Math.min(2 * maxBatch, MAX_OPEN) && this.#hasClaim(sequence, active);
  }

  /** Whether nothing of its request runs while another request of no higher priority has several sequences. */
  #hasClaim(sequence: Sequence, active: readonly Sequence[]): boolean {
    const counts = countsOf(active);
    if (counts.has(sequence.request.requestId)) return false;
    return active.some(({ request }) => yields(request, sequence, counts));
  }

  /** The youngest sequence of the request that has most, when the other one has none. */
  #victimFor(sequence: Sequence): Sequence | undefined {
    const active = this.#active();
    if (!this.#hasClaim(sequence, active)) return undefined;
    const counts = countsOf(active);
    const countOf = ({ request }: Sequence) => counts.get(request.requestId) ?? 0;
    return active
      .filter((other) => !this.#parts.isPlanned(other) && yields(other.request, sequence, counts))
      .toSorted((a, b) => countOf(b) - countOf(a) || b.arrival - a.arrival)[0];
  }

  #active(): readonly Sequence[] {
    return this.#parts.roster.running.filter((sequence) => !sequence.paused);
  }
}

/** Running sequences by request. */
function countsOf(sequences: readonly Sequence[]): ReadonlyMap<string, number> {
  const groups = Map.groupBy(sequences, ({ request }) => request.requestId);
  return new Map([...groups].map(([requestId, { length }]) => [requestId, length]));
}

function yields(
  { requestId, priority }: Sequence["request"],
  to: Sequence,
  counts: ReadonlyMap<string, number>,
): boolean {
  return priority >= to.request.priority && (counts.get(requestId) ?? 0) > 1;
}
