/**
 * Memory that large messages are read into before they are sent, and that is free again when they have left.
 */

import { MIN_LANE_BYTES } from "./lane_messages.ts";
import { ofOneThread, ofThreads, SpareMemory } from "./spare_memory.ts";

/** Buffers by size. */
export class SendBuffers {
  readonly #spare = new SpareMemory();

  /** A buffer of exactly so many bytes, with any contents; large ones in memory that the thread of a lane may read. */
  take(bytes: number): Uint8Array {
    return new Uint8Array(this.#spare.take(bytes, bytes < MIN_LANE_BYTES ? ofOneThread : ofThreads));
  }

  /** @returns what is to be called so many times, the last time when no one reads the buffer any more */
  giveAfter(times: number, buffer: Uint8Array): () => void {
    let left = times;
    return () => {
      if (--left === 0) this.give(buffer);
    };
  }

  /** Takes back a buffer that is no longer read. */
  give({ buffer }: Uint8Array): void {
    this.#spare.give(buffer);
  }
}
