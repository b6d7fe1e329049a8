/** How long each request may wait for its first admission. */

import type { Sequence } from "./sequence.ts";

/** One timer for each sequence that was never admitted. */
export class QueueTimers {
  readonly #timers = new Map<Sequence, ReturnType<typeof setTimeout>>();

  start(sequence: Sequence, ms: number, onLate: () => void): void {
    this.#timers.set(sequence, setTimeout(onLate, ms));
  }

  /** @returns whether one was running */
  stop(sequence: Sequence): boolean {
    clearTimeout(this.#timers.get(sequence));
    return this.#timers.delete(sequence);
  }
}
