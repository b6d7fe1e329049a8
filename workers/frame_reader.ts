/**
 * Cuts a stream of bytes into frames, each payload in a buffer of its own.
 * Knows lengths; knows nothing of what is inside a frame.
 */

import { decodePrefix, type FrameLimits, PREFIX_BYTES } from "./codec.ts";
import { ProtocolError } from "./errors.ts";

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
/** As many as may be on their way at a time. */
const MAX_RECYCLED = 8;

/** Reads frames one after another; not to be called again before the previous call has settled. */
export class FrameReader {
  readonly #source: ByteSource;
  readonly #limits: FrameLimits;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #shared: boolean;
  readonly #recycled: ArrayBufferLike[] = [];
  #start = 0;
  #end = 0;

  constructor(source: ByteSource, limits: FrameLimits, { shared = false }: FrameReaderOptions = {}) {
    this.#source = source;
    this.#limits = limits;
    this.#shared = shared;
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
    const payload = await this.#part("payload", new Uint8Array(this.#memory(payloadBytes)));
    return { header, payload: payload.buffer };
  }

  /** Takes back a payload that is no longer used, for the next one of its size. */
  recycle(payload: ArrayBufferLike): void {
    if (payload.byteLength < RECYCLED_BYTES) return;
    this.#recycled.push(payload);
    if (this.#recycled.length > MAX_RECYCLED) this.#recycled.shift();
  }

  /** Memory for a payload, with any contents. */
  #memory(bytes: number): ArrayBufferLike {
    const known = this.#recycled.findIndex(({ byteLength }) => byteLength === bytes);
    const [recycled] = known < 0 ? [] : this.#recycled.splice(known, 1);
    return recycled ?? (this.#shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
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
