/**
 * Memory for large messages that is used again. Fresh memory takes several times as long to write: the system hands it over page by
 * page. Bounded; what has lain idle longest goes first.
 */

/** As many messages as may be on their way at a time. */
const MAX_IDLE = 8;

/** Fresh memory for one thread. */
export function ofOneThread(bytes: number): ArrayBuffer {
  return new ArrayBuffer(bytes);
}

/** Fresh memory that several threads may use. */
export function ofThreads(bytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(bytes);
}

/** Memory by size; users that do not give theirs back cost the next one fresh memory. */
export class SpareMemory {
  /** The one given back last comes last. */
  readonly #idle: ArrayBufferLike[] = [];

  /** Memory of exactly so many bytes, with any contents. @param fresh makes it where none is idle */
  take(bytes: number, fresh: (bytes: number) => ArrayBufferLike): ArrayBufferLike {
    const known = this.#idle.findLastIndex(({ byteLength }) => byteLength === bytes);
    const [memory = fresh(bytes)] = known < 0 ? [] : this.#idle.splice(known, 1);
    return memory;
  }

  /** Takes back what is no longer used. */
  give(memory: ArrayBufferLike): void {
    this.#idle.push(memory);
    if (this.#idle.length > MAX_IDLE) this.#idle.shift();
  }
}
