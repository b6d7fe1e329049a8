/** A timer that can be set back. Knows milliseconds; knows nothing of what is late. */

/** Calls back once, unless it is cleared before. */
export class Deadline {
  readonly #ms: number;
  readonly #onLate: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(ms: number, onLate: () => void) {
    this.#ms = ms;
    this.#onLate = onLate;
    this.#timer = setTimeout(onLate, ms);
  }

  /** The time counts from now. */
  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onLate, this.#ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
