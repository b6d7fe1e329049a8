/** What the exchanges of a step cost, by kind. Knows milliseconds and bytes; knows nothing of what was exchanged. */

import type { ByExchange, ExchangeTiming } from "../engine/span.ts";
import type { PeerMessage, Tensors } from "./peer_protocol.ts";

type Kind = keyof ByExchange;

const NOTHING: ByExchange = { queries: 0, keys: 0, states: 0, rows: 0, candidates: 0, replicas: 0 };

/** Adds up. */
export class ExchangeTally {
  #ms: Record<Kind, number> = { ...NOTHING };
  #bytes: Record<Kind, number> = { ...NOTHING };
  #counts: Record<Kind, number> = { ...NOTHING };
  #readMs = 0;

  /** What was added up since the last call. */
  take(): ExchangeTiming {
    const timing = { ms: this.#ms, readMs: this.#readMs, bytes: this.#bytes, counts: this.#counts };
    this.#ms = { ...NOTHING };
    this.#bytes = { ...NOTHING };
    this.#counts = { ...NOTHING };
    this.#readMs = 0;
    return timing;
  }

  /** Times a part of an exchange; several may overlap. */
  async time<T>(kind: Kind, exchange: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await exchange();
    this.#ms[kind] += performance.now() - startedAt;
    return result;
  }

  /** Times a read-back within a part that is timed; it counts as a read-back alone. */
  async read<T>(kind: Kind, readBack: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await readBack();
    const tookMs = performance.now() - startedAt;
    this.#ms[kind] -= tookMs;
    this.#readMs += tookMs;
    return result;
  }

  /** Adds time that was spent waiting elsewhere. */
  waited(kind: Kind, ms: number): void {
    this.#ms[kind] += ms;
  }

  /** Counts what a message has sent, as far as it is part of an exchange. */
  send(message: PeerMessage): void {
    switch (message.kind) {
      case "tokens":
        return;
      case "states":
        return this.sent("states", bytesOf([...message.o, ...message.lse]));
      default:
        return this.sent(message.kind, bytesOf(message.rows));
    }
  }

  /** Counts bytes. */
  sent(kind: Kind, bytes: number): void {
    this.#bytes[kind] += bytes;
  }

  /** Counts an exchange that something is waited for in. */
  count(kind: Kind): void {
    this.#counts[kind]++;
  }
}

function bytesOf(tensors: Tensors): number {
  return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
