/** How long each request may wait for its first admission. */

import { waitedTooLong } from "./admission.ts";
import type { Sequence } from "./sequence.ts";

/** One timer for each sequence that was never admitted. */
export class QueueTimers {
  readonly #queueTimeoutMs: number;
  readonly #timers = new Map<Sequence, ReturnType<typeof setTimeout>>();

  constructor(queueTimeoutMs: number) {
    this.#queueTimeoutMs = queueTimeoutMs;
  }

  /** Fails a sequence that is not stopped in time, counted from its arrival. */
  start(sequence: Sequence): void {
    const leftMs = this.#queueTimeoutMs - (performance.now() - sequence.arrivedAtMs);
    const late = () => sequence.owner?.fail(waitedTooLong(this.#queueTimeoutMs));
    this.#timers.set(sequence, setTimeout(late, Math.max(0, leftMs)));
  }

  /** @returns whether one was running */
  stop(sequence: Sequence): boolean {
    clearTimeout(this.#timers.get(sequence));
    return this.#timers.delete(sequence);
  }
}
