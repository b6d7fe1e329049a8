/**
 * Frames on their way out of a connection: queued whole, written in the background in order, and bounded. Knows bytes; knows nothing
 * of what a frame holds.
 */

import { LinkError } from "./errors.ts";
import { type WorkerConn, writeFully } from "./transport.ts";

/** What is written to. */
export type ByteSink = Pick<WorkerConn, "write">;

/** How much waits, and what happens when writing fails. */
export interface FrameWriterOptions {
  /** Bytes that may wait for a peer that does not read; one frame always may. */
  readonly maxBytes: number;
  /** Called once; nothing is written any more. */
  readonly onFailed: (error: unknown) => void;
}

/** See the top of this file. */
export class FrameWriter {
  readonly #sink: ByteSink;
  readonly #options: FrameWriterOptions;
  /** A frame's last piece reports when it has left. */
  readonly #queue: { readonly piece: Uint8Array; readonly onSent: (() => void) | undefined }[] = [];
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  #hasFailed = false;
  #queuedBytes = 0;

  constructor(sink: ByteSink, options: FrameWriterOptions) {
    this.#sink = sink;
    this.#options = options;
  }

  /** Resolves when everything queued so far is handed to the operating system, or writing has failed. */
  get written(): Promise<void> {
    return this.#writing;
  }

  /**
   * Queues a frame, whose bytes must not change before it has left.
   * @throws {LinkError} `link_overflow` when too much waits already
   */
  add(pieces: readonly Uint8Array[], onSent?: () => void): void {
    const { maxBytes } = this.#options;
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    if (this.#queuedBytes > 0 && this.#queuedBytes + bytes > maxBytes) {
      throw new LinkError(
        "link_overflow",
        `Cannot send message: ${this.#queuedBytes} bytes are waiting already, the bound is ${maxBytes}`,
      );
    }
    for (const [i, piece] of pieces.entries()) {
      this.#queue.push({ piece, onSent: i === pieces.length - 1 ? onSent : undefined });
    }
    this.#queuedBytes += bytes;
    if (this.#isWriting || this.#hasFailed) return;
    this.#isWriting = true;
    this.#writing = this.#write();
  }

  async #write(): Promise<void> {
    try {
      for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
        const { piece, onSent } = next;
        await writeFully(this.#sink, piece);
        this.#queue.shift();
        this.#queuedBytes -= piece.length;
        onSent?.();
      }
    } catch (error) {
      this.#hasFailed = true;
      this.#options.onFailed(error);
    } finally {
      this.#isWriting = false;
    }
  }
}
