/**
 * The sequences of a scheduler whose readers still wait for the end: how long each may wait for its first pages, and who
 * waits until there are none.
 */

import { QueueTimers } from "./queue_timers.ts";
import type { Sequence } from "./sequence.ts";

/** See the top of this file. */
export class ActiveSequences implements Iterable<Sequence> {
  readonly #sequences = new Set<Sequence>();
  readonly #queueTimers: QueueTimers;
  #onEmpty: (() => void)[] = [];

  constructor(queueTimeoutMs: number) {
    this.#queueTimers = new QueueTimers(queueTimeoutMs);
  }

  get size(): number {
    return this.#sequences.size;
  }

  /** Whether any belongs to a request of that id. */
  has(requestId: string): boolean {
    return this.#sequences.values().some(({ request }) => request.requestId === requestId);
  }

  add(sequence: Sequence): void {
    this.#sequences.add(sequence);
    if (sequence.cachedTokens === undefined) this.#queueTimers.start(sequence);
  }

  /** It has its first pages. @returns whether it was waiting for them */
  admitted(sequence: Sequence): boolean {
    return this.#queueTimers.stop(sequence);
  }

  delete(sequence: Sequence): void {
    this.#queueTimers.stop(sequence);
    this.#sequences.delete(sequence);
    if (this.#sequences.size === 0) this.#onEmpty.splice(0).forEach((resolve) => resolve());
  }

  /** Resolves when none is left. @param onLate called when some are after so many milliseconds */
  async emptied(deadlineMs: number, onLate: () => void): Promise<void> {
    if (this.#sequences.size === 0) return;
    const timer = setTimeout(onLate, deadlineMs);
    await new Promise<void>((resolve) => this.#onEmpty.push(resolve));
    clearTimeout(timer);
  }

  [Symbol.iterator](): Iterator<Sequence> {
    return this.#sequences.values();
  }
}
