/** Runs tasks concurrently, at most so many at a time; the others wait for their turn. */

/** Runs what it is given, in the order in which it is given. */
export class Concurrently {
  readonly #most: number;
  readonly #waiting: (() => Promise<void>)[] = [];
  readonly #failures: unknown[] = [];
  readonly #idle: (() => void)[] = [];
  #running = 0;

  /** @param most how much may be under way at a time */
  constructor(most: number) {
    this.#most = most;
  }

  /** Begins work now or when its turn comes; a failure keeps the rest from nothing. */
  run(work: () => Promise<void>): void {
    this.#waiting.push(work);
    this.#begin();
  }

  /** Waits until nothing is under way and nothing waits, whatever came of it. */
  async ended(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** @throws what the first that failed threw */
  rethrow(): void {
    if (this.#failures.length > 0) throw this.#failures[0];
  }

  #begin(): void {
    if (this.#running === this.#most) return;
    const work = this.#waiting.shift();
    if (work === undefined) {
      if (this.#running === 0) { for (const resolve of this.#idle.splice(0)) resolve(); }
      return;
    }
    this.#running++;
    work().catch((error: unknown) => this.#failures.push(error)).finally(() => {
      this.#running--;
      this.#begin();
    });
  }
}
