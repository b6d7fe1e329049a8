/** How many requests of one client may run at once. A client is an API key, or an address where there are no keys. */

import { RequestError } from "../errors.ts";

/** Counts what runs; a client that runs nothing costs no memory. */
export class ClientQuota {
  readonly #max: number | undefined;
  readonly #running = new Map<string, number>();

  /** @param max undefined: any number */
  constructor(max: number | undefined) {
    this.#max = max;
  }

  /** Requests of a client that run now. */
  running(client: string): number {
    return this.#running.get(client) ?? 0;
  }

  /**
   * Takes one of a client's places.
   * @returns gives it back; harmless twice
   * @throws {RequestError} `rate_limit_exceeded` when all are taken
   */
  take(client: string): () => void {
    const running = this.running(client);
    if (this.#max !== undefined && running >= this.#max) {
      throw new RequestError(
        "rate_limit_exceeded",
        `Cannot take the request: ${running} of this client run, at most ${this.#max} may`,
      );
    }
    this.#running.set(client, running + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = this.running(client) - 1;
      if (left > 0) this.#running.set(client, left);
      else this.#running.delete(client);
    };
  }
}
