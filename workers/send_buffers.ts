/**
 * Memory that large messages are read into before they are sent, and that is free again when they have left. Fresh memory
 * takes several times as long to write: the system hands it over page by page.
 */

import { MIN_LANE_BYTES } from "./lane_messages.ts";

/** As many as may be on their way at a time. */
const MAX_IDLE = 8;

/** Buffers by size; callers that do not give one back cost the next one a fresh one. */
export class SendBuffers {
  /** The one given back last comes last. */
  readonly #idle: Uint8Array[] = [];

  /** A buffer of exactly so many bytes, with any contents; large ones in memory that the thread of a lane may read. */
  take(bytes: number): Uint8Array {
    const known = this.#idle.findLastIndex(({ length }) => length === bytes);
    const [buffer] = known < 0 ? [] : this.#idle.splice(known, 1);
    return buffer ?? new Uint8Array(bytes < MIN_LANE_BYTES ? new ArrayBuffer(bytes) : new SharedArrayBuffer(bytes));
  }

  /** @returns what is to be called so many times, the last time when no one reads the buffer any more */
  giveAfter(times: number, buffer: Uint8Array): () => void {
    let left = times;
    return () => {
      if (--left === 0) this.give(buffer);
    };
  }

  /** Takes back a buffer that is no longer read. */
  give(buffer: Uint8Array): void {
    this.#idle.push(buffer);
    if (this.#idle.length > MAX_IDLE) this.#idle.shift();
  }
}
