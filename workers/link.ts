/**
 * One connection as a pair of message queues. A reader always runs and no write is awaited before a read, so two peers
 * that both send much cannot block each other. Knows frames and backpressure; knows nothing of what messages mean.
 */

import { messageOf } from "../kernels/errors.ts";
import { decodeMessage, encodePieces, FRAME_LIMITS, type FrameLimits } from "./codec.ts";
import { LinkError, ProtocolError } from "./errors.ts";
import { FrameReader } from "./frame_reader.ts";
import { FrameWriter } from "./frame_writer.ts";
import type { WorkerConn } from "./transport.ts";

/** How a link reads and how much it holds. */
export interface LinkOptions<In> {
  /** Makes a message of what was decoded; throws a `ProtocolError` when it is none. */
  readonly parse: (value: unknown) => In;
  /** @default FRAME_LIMITS */
  readonly limits?: FrameLimits;
  /** Bytes that may wait for a peer that does not read; one frame always may. @default 64 MiB */
  readonly outgoingBytes?: number;
  /** Messages that may wait to be received. @default 1024 */
  readonly incomingMessages?: number;
}

/** Why a link is over. */
export type LinkEnd = LinkError | ProtocolError;

/**
 * Sends messages of type Out and receives messages of type In over a connection that it owns from now on.
 * However a link ends, everything that had arrived before can still be received; then `receive` throws the reason.
 */
export class Link<Out, In> {
  readonly #conn: WorkerConn;
  readonly #limits: FrameLimits;
  readonly #parse: (value: unknown) => In;
  readonly #incomingMessages: number;
  readonly #incoming: In[] = [];
  readonly #over = Promise.withResolvers<LinkEnd>();
  readonly #frames: FrameReader;
  readonly #writer: FrameWriter;
  readonly #reading: Promise<void>;
  #end: LinkEnd | undefined;
  #wake: (() => void) | undefined;

  constructor(conn: WorkerConn, options: LinkOptions<In>) {
    this.#conn = conn;
    this.#parse = options.parse;
    this.#limits = options.limits ?? FRAME_LIMITS;
    this.#incomingMessages = options.incomingMessages ?? 1024;
    conn.setNoDelay?.(NO_DELAY);
    this.#frames = new FrameReader(conn, this.#limits);
    this.#writer = new FrameWriter(conn, {
      maxBytes: options.outgoingBytes ?? 64 << 20,
      // What the peer sent before it broke off may still wait to be read: the reader will see the same end, after that.
      onFailed: (error) => isConnectionError(error) || this.#finish(asEnd(error)),
    });
    this.#reading = this.#read();
  }

  /** Resolves when the link is over, with the reason; never rejects. */
  get ended(): Promise<LinkEnd> {
    return this.#over.promise;
  }

  /**
   * Queues a message; it leaves in the background, in order. Does not copy large tensors: they must not change before it has.
   * @param onSent called when it has left; never, when the link ends before
   * @throws {LinkError} when the link is over, or when the peer has not read for too long, which ends it
   * @throws {ProtocolError} when the message does not fit into a frame; the link goes on
   */
  send(message: Out, onSent?: () => void): void {
    if (this.#end !== undefined) throw unusable(this.#end);
    const pieces = encodePieces(message, this.#limits);
    try {
      this.#writer.add(pieces, onSent);
    } catch (error) {
      this.#finish(asEnd(error));
      throw error;
    }
  }

  /**
   * The next message; one caller at a time.
   * @throws {LinkError} `link_timeout` after `deadlineMs`; the reason of the end when the link is over
   * @throws {ProtocolError} when the peer broke the protocol
   */
  async receive(deadlineMs: number): Promise<In> {
    if (this.#incoming.length === 0 && this.#end === undefined) await this.#arrival(deadlineMs);
    const message = this.#incoming.shift();
    if (message !== undefined) return message;
    throw this.#end ?? new LinkError("link_timeout", `Cannot receive: nothing came within ${deadlineMs} ms`);
  }

  /** Takes back the memory of a message's tensors, which are no longer used, for the next message of that size. */
  recycle(payload: ArrayBufferLike): void {
    this.#frames.recycle(payload);
  }

  /** Every message until the link is over; then throws the reason, even when the peer just closed it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<In, never, void> {
    for (;;) {
      if (this.#incoming.length === 0 && this.#end === undefined) await this.#arrival();
      const message = this.#incoming.shift();
      if (message !== undefined) yield message;
      else if (this.#end !== undefined) throw this.#end;
    }
  }

  /** Waits until everything queued is handed to the operating system, the link is over, or the deadline has passed. */
  async flush(deadlineMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, deadlineMs));
    await Promise.race([this.#writer.written, this.#over.promise, late]);
    clearTimeout(timer);
  }

  /** Ends the link and frees the connection; what is still queued is lost. Harmless when it is over. */
  async close(): Promise<void> {
    this.#finish(new LinkError("link_closed", "Cannot use link: it was closed on this side"));
    await Promise.all([this.#reading, this.#writer.written]);
  }

  /** Resolves at the next message, at the end of the link, or when the deadline, if there is one, has passed. */
  #arrival(deadlineMs?: number): Promise<void> {
    if (this.#wake !== undefined) throw new Error("Cannot receive: another receive is waiting already");
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      const timer = deadlineMs === undefined ? undefined : setTimeout(wake, deadlineMs);
      this.#wake = wake;
    });
  }

  async #read(): Promise<void> {
    const frames = this.#frames;
    try {
      for (let frame = await frames.next(); frame !== undefined; frame = await frames.next()) {
        if (this.#incoming.length >= this.#incomingMessages) {
          throw new ProtocolError(`Cannot receive: ${this.#incomingMessages} messages are waiting already`);
        }
        this.#incoming.push(this.#parse(decodeMessage(frame.header, frame.payload)));
        this.#wake?.();
      }
      this.#finish(new LinkError("link_closed", "Cannot use link: the peer closed it"));
    } catch (error) {
      this.#finish(asEnd(error));
    }
  }

  /** The first reason counts. */
  #finish(end: LinkEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#conn.close();
    this.#over.resolve(end);
    this.#wake?.();
  }
}

const NO_DELAY = true;

function isConnectionError(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.ConnectionAborted || error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.NotConnected;
}

/** Why nothing can be sent: never a `ProtocolError`, which says that the message is at fault. */
function unusable(end: LinkEnd): LinkError {
  return end instanceof LinkError
    ? end
    : new LinkError("link_closed", `Cannot use link: ${end.message}`, { cause: end });
}

/** Why a link is over that failed so. */
export function asEnd(error: unknown): LinkEnd {
  if (error instanceof ProtocolError || error instanceof LinkError) return error;
  const reason = messageOf(error);
  return new LinkError("link_closed", `Cannot use link: the connection broke: ${reason}`, { cause: error });
}
