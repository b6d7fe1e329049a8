/** How long workers that are there wait for others that are on their way. Knows time; knows no worker. */

/** One wait after another; `end` must be called when there is to be none any more. */
export class Gathering {
  readonly #ms: number;
  readonly #onOver: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  /** @param ms undefined: without an end */
  constructor(ms: number | undefined, onOver: () => void) {
    this.#ms = ms ?? Infinity;
    this.#onOver = onOver;
  }

  /** Whether they have waited long enough; begins the wait. */
  hasWaited(): boolean {
    if (this.#isOver || this.#ms === Infinity) return this.#isOver;
    this.#timer ??= setTimeout(() => {
      this.skip();
      this.#onOver();
    }, this.#ms);
    return false;
  }

  /** Workers that are there do not wait this time. */
  skip(): void {
    this.end();
    this.#isOver = true;
  }

  /** They are together; the next wait starts over. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isOver = false;
  }
}
