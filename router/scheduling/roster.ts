/**
 * What runs and what waits, in order of rank, and which sequences the workers must forget. Every way into and out of
 * running goes through here, so that pages and releases cannot be left behind. Knows sequences; knows nothing of steps.
 */

import type { SequenceId } from "../../engine/span.ts";
import type { PageLedger } from "./page_ledger.ts";
import type { Sequence } from "./sequence.ts";

/** Who goes first: by priority, then by arrival. */
export function byRank(a: Sequence, b: Sequence): number {
  return a.request.priority - b.request.priority || a.arrival - b.arrival;
}

/** Both lists are sorted by rank. */
export class Roster {
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #releases: SequenceId[] = [];
  #nextId: SequenceId = 1;

  get waiting(): readonly Sequence[] {
    return this.#waiting;
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  /** How many run, and how many wait. */
  get counts(): { readonly running: number; readonly waiting: number } {
    return { running: this.#running.length, waiting: this.#waiting.length };
  }

  /** Lets a sequence wait after those of higher rank. */
  enqueue(sequence: Sequence): void {
    sequence.queuedAtMs = performance.now();
    sequence.blockedAtMs = undefined;
    insert(this.#waiting, sequence);
  }

  /** From waiting to running, on what the prefix cache has. */
  admit(sequence: Sequence, ledger: PageLedger): void {
    ledger.admit(sequence, this.#nextId++, this.#running);
    sequence.blockedAtMs = undefined;
    remove(this.#waiting, sequence);
    insert(this.#running, sequence);
  }

  /** Out of running or waiting; its exact pages stay cached. */
  leave(sequence: Sequence, ledger: PageLedger | undefined): void {
    remove(this.#waiting, sequence);
    if (!remove(this.#running, sequence)) return;
    if (sequence.opened && sequence.id !== undefined) this.#releases.push(sequence.id);
    if (ledger === undefined) sequence.stop();
    else ledger.leave(sequence);
  }

  /** From running back to waiting, without its pages. */
  preempt(sequence: Sequence, ledger: PageLedger): void {
    this.leave(sequence, ledger);
    this.enqueue(sequence);
  }

  /** The group is gone and all it knew: everything that ran waits again. @returns what ran */
  reset(): readonly Sequence[] {
    const ran = this.#running.splice(0);
    for (const sequence of ran) {
      sequence.stop();
      this.enqueue(sequence);
    }
    this.#releases.length = 0;
    return ran;
  }

  /** Sequences that are gone here, but not yet on the workers; taking them obliges to release them there. */
  takeReleases(): readonly SequenceId[] {
    return this.#releases.splice(0);
  }
}

function insert(list: Sequence[], sequence: Sequence): void {
  const behind = list.findIndex((other) => byRank(other, sequence) > 0);
  list.splice(behind < 0 ? list.length : behind, 0, sequence);
}

function remove(list: Sequence[], sequence: Sequence): boolean {
  const at = list.indexOf(sequence);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}
