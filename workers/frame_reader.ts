/**
 * Cuts a stream of bytes into frames, each payload in a buffer of its own.
 * Knows lengths; knows nothing of what is inside a frame.
 */

import { decodePrefix, type FrameLimits, PREFIX_BYTES } from "./codec.ts";
import { ProtocolError } from "./errors.ts";
import { ofOneThread, ofThreads, SpareMemory } from "./spare_memory.ts";

/** Where the bytes come from; a `Deno.Conn` is one. */
export interface ByteSource {
  read(into: Uint8Array): Promise<number | null>;
}

/** The two parts of a frame, still encoded. */
export interface Frame {
  readonly header: Uint8Array;
  readonly payload: ArrayBufferLike;
}

/** Where payloads lie. */
export interface FrameReaderOptions {
  /** In memory that several threads may use. @default false */
  readonly shared?: boolean;
}

const BUFFER_BYTES = 64 << 10;

/** Payloads from this size on are worth another use: 8 MiB of fresh memory take four to seven times as long to write as warm. */
const RECYCLED_BYTES = 256 << 10;

/** Reads frames one after another; not to be called again before the previous call has settled. */
export class FrameReader {
  readonly #source: ByteSource;
  readonly #limits: FrameLimits;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #fresh: (bytes: number) => ArrayBufferLike;
  readonly #spare = new SpareMemory();
  #start = 0;
  #end = 0;

  constructor(source: ByteSource, limits: FrameLimits, { shared = false }: FrameReaderOptions = {}) {
    this.#source = source;
    this.#limits = limits;
    this.#fresh = shared ? ofThreads : ofOneThread;
  }

  /**
   * The next frame, or undefined when the stream ended between two frames.
   * @throws {ProtocolError} when a length exceeds its limit or the stream ends inside a frame
   */
  async next(): Promise<Frame | undefined> {
    const prefix = new Uint8Array(PREFIX_BYTES);
    const got = await this.#fill(prefix);
    if (got === 0) return undefined;
    if (got < PREFIX_BYTES) throw truncated("prefix", got, PREFIX_BYTES);
    const { headerBytes, payloadBytes } = decodePrefix(prefix, this.#limits);
    const header = await this.#part("header", new Uint8Array(headerBytes));
    const payload = await this.#part("payload", new Uint8Array(this.#spare.take(payloadBytes, this.#fresh)));
    return { header, payload: payload.buffer };
  }

  /** Takes back a payload that is no longer used, for the next one of its size. */
  recycle(payload: ArrayBufferLike): void {
    if (payload.byteLength >= RECYCLED_BYTES) this.#spare.give(payload);
  }

  async #part(name: string, part: Uint8Array): Promise<Uint8Array> {
    const got = await this.#fill(part);
    if (got < part.length) throw truncated(name, got, part.length);
    return part;
  }

  /** Fills `target`, or as much of it as there is before the stream ends; returns the bytes written. */
  async #fill(target: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < target.length) {
      if (this.#start < this.#end) {
        const chunk = this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + target.length - filled));
        target.set(chunk, filled);
        filled += chunk.length;
        this.#start += chunk.length;
        continue;
      }
      // What is larger than the buffer is read in place, without a second copy.
      const direct = target.length - filled >= BUFFER_BYTES;
      const got = await this.#source.read(direct ? target.subarray(filled) : this.#buffer);
      if (got === null) return filled;
      if (direct) filled += got;
      else [this.#start, this.#end] = [0, got];
    }
    return filled;
  }
}

function truncated(part: string, got: number, expected: number): ProtocolError {
  return new ProtocolError(`Cannot read frame: the stream ended after ${got} of ${expected} bytes of its ${part}`);
}
