/** What every part of an exchange between peers is given. */

import type { ExchangeMemory } from "./exchange_memory.ts";
import type { Mailbox } from "./mailbox.ts";

/** Whom a worker exchanges with, and through what. */
export interface ExchangeOptions {
  /** Indices of the other workers. */
  readonly peers: readonly number[];
  readonly memory: ExchangeMemory;
  /** Where what the peers and the router send arrives. */
  readonly mailbox: Mailbox;
  /** Takes back the memory of a peer's message that is used up. */
  readonly recycle: (peer: number, payload: ArrayBufferLike) => void;
}
