/** One direction of a slow link: packets leave after a delay in the order in which they came, and some never do. */

import { Random } from "../support/random.ts";

/** What a link does to packets. */
export interface Slowness {
  readonly delayMs: number;
  /** Of packets, each for itself. */
  readonly lossPercent: number;
}

/** More wait in no link, as in `tc netem`: what comes beyond that is lost. */
const MAX_WAITING = 1000;

/** See the top of this file. */
export class SlowQueue {
  readonly #slowness: Slowness;
  readonly #random: Random;
  readonly #waiting: { readonly dueMs: number; readonly packet: Uint8Array<ArrayBuffer> }[] = [];
  lost = 0;

  /** @param seed the same packets of a sequence are lost with the same seed */
  constructor(slowness: Slowness, seed: number) {
    this.#slowness = slowness;
    this.#random = new Random(seed);
  }

  /** When the next packet leaves; undefined when none waits. */
  get nextMs(): number | undefined {
    return this.#waiting[0]?.dueMs;
  }

  /** Does not copy: the packet is the link's from now on. */
  push(packet: Uint8Array<ArrayBuffer>, nowMs: number): void {
    const isLost = 100 * this.#random.uniform() < this.#slowness.lossPercent;
    if (isLost || this.#waiting.length >= MAX_WAITING) this.lost++;
    else this.#waiting.push({ dueMs: nowMs + this.#slowness.delayMs, packet });
  }

  /** The next packet that is due; undefined when none is. */
  pop(nowMs: number): Uint8Array<ArrayBuffer> | undefined {
    const first = this.#waiting[0];
    if (first === undefined || first.dueMs > nowMs) return undefined;
    this.#waiting.shift();
    return first.packet;
  }
}
