/** What the exchanges of a step cost, by kind. Knows milliseconds and bytes; knows nothing of what was exchanged. */

import type { ByExchange, ExchangeTiming } from "../engine/span.ts";

type Kind = keyof ByExchange;

/** Adds up. */
export class ExchangeTally {
  readonly #ms: Record<Kind, number> = { queries: 0, states: 0, rows: 0, candidates: 0, replicas: 0 };
  readonly #bytes: Record<Kind, number> = { queries: 0, states: 0, rows: 0, candidates: 0, replicas: 0 };
  #readMs = 0;

  /** So far. */
  get timing(): ExchangeTiming {
    return { ms: this.#ms, readMs: this.#readMs, bytes: this.#bytes };
  }

  /** Times an exchange; read-backs within it count as such. */
  async time<T>(kind: Kind, exchange: () => Promise<T>): Promise<T> {
    const [startedAt, readMs] = [performance.now(), this.#readMs];
    const result = await exchange();
    this.#ms[kind] += performance.now() - startedAt - (this.#readMs - readMs);
    return result;
  }

  /** Times a read-back. */
  async read<T>(readBack: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await readBack();
    this.#readMs += performance.now() - startedAt;
    return result;
  }

  /** Counts what was sent. */
  send(kind: Kind, bytes: number): void {
    this.#bytes[kind] += bytes;
  }
}
