/**
 * A lane as its worker's main thread sees it: messages go in and come out as on a link. Owns the thread. Knows messages and shared
 * memory; knows nothing of sockets.
 */

import { decodeMessage, encodePieces } from "./codec.ts";
import { LinkError, ProtocolError } from "./errors.ts";
import type { FromLane, LaneOrigin, ToLane } from "./lane_messages.ts";
import type { LinkEnd } from "./link.ts";
import { parsePeerMessage, type PeerMessage } from "./peer_protocol.ts";

/** Who gets what comes out of a lane. */
export interface LaneListener {
  /** @throws {ProtocolError} when it cannot be taken, which ends the lane */
  onMessage(message: PeerMessage): void;
  /** Called once, unless this side closes the lane. */
  onEnd(end: LinkEnd): void;
}

/** Lasts from its making until `close`, whether it comes about or not. */
export class Lane {
  readonly #thread: Worker;
  readonly #listening = Promise.withResolvers<number>();
  readonly #open = Promise.withResolvers<void>();
  /** Of the frames under way, the earliest first. */
  readonly #onSent: ((() => void) | undefined)[] = [];
  /** What came before anyone listened. */
  readonly #early: PeerMessage[] = [];
  #listener: LaneListener | undefined;
  #end: LinkEnd | undefined;
  #isClosed = false;
  readonly #late: ReturnType<typeof setTimeout>;

  constructor(origin: LaneOrigin) {
    this.#thread = new Worker(new URL("./lane_thread.ts", import.meta.url), { type: "module", name: "lane" });
    this.#thread.onmessage = ({ data }: MessageEvent<FromLane>) => this.#take(data);
    this.#thread.onerror = (event) => {
      event.preventDefault();
      this.#finish(new LinkError("link_closed", `Cannot use lane: its thread died: ${event.message}`));
    };
    // Callers that no longer wait for either do not make a failure of it.
    this.#listening.promise.catch(() => {});
    this.#open.promise.catch(() => {});
    const { deadlineMs } = origin;
    // The thread keeps it too, but only once it has started.
    this.#late = setTimeout(() => {
      this.#finish(new LinkError("link_closed", `Cannot use lane: it is not open after ${deadlineMs} ms`));
    }, deadlineMs);
    this.#post({ kind: "open", origin });
  }

  /** The port at which a side that listens waits for the peer. @throws {LinkError} when it cannot listen */
  get listening(): Promise<number> {
    return this.#listening.promise;
  }

  /** Resolves when the peers have met. @throws {LinkError} why they have not */
  get open(): Promise<void> {
    return this.#open.promise;
  }

  /** Hands on what has come, and everything that comes. */
  listen(listener: LaneListener): void {
    this.#listener = listener;
    for (const message of this.#early.splice(0)) this.#deliver(listener, message);
    if (this.#end !== undefined) listener.onEnd(this.#end);
  }

  /**
   * Queues a message. Does not copy tensors in shared memory: they must not change before it has left.
   * @param onSent called when it has left; never, when the lane ends before
   * @throws {LinkError} when the lane is over
   */
  send(message: PeerMessage, onSent?: () => void): void {
    if (this.#end !== undefined) throw this.#end;
    this.#onSent.push(onSent);
    this.#post({ kind: "send", pieces: encodePieces(message) });
  }

  /** Takes back the memory of a message's tensors, which no one uses any more. */
  recycle(payload: SharedArrayBuffer): void {
    if (this.#end === undefined) this.#post({ kind: "recycle", payload });
  }

  /** Ends the lane and its thread; what is still queued is lost. Harmless when it is over. */
  close(): void {
    this.#isClosed = true;
    this.#finish(new LinkError("link_closed", "Cannot use lane: it was closed on this side"));
  }

  #post(message: ToLane): void {
    this.#thread.postMessage(message);
  }

  #take(message: FromLane): void {
    if (this.#end !== undefined) return;
    switch (message.kind) {
      case "listening":
        return this.#listening.resolve(message.port);
      case "open":
        clearTimeout(this.#late);
        return this.#open.resolve();
      case "sent":
        return this.#onSent.shift()?.();
      case "frame":
        return this.#takeFrame(message);
      case "ended":
        return this.#finish(
          message.code === "protocol"
            ? new ProtocolError(message.message)
            : new LinkError(message.code, message.message),
        );
    }
  }

  #takeFrame({ header, payload }: Extract<FromLane, { readonly kind: "frame" }>): void {
    this.#post({ kind: "taken", bytes: payload.byteLength });
    try {
      const message = parsePeerMessage(decodeMessage(header, payload));
      if (this.#listener === undefined) this.#early.push(message);
      else this.#deliver(this.#listener, message);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#finish(error);
    }
  }

  #deliver(listener: LaneListener, message: PeerMessage): void {
    try {
      listener.onMessage(message);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#finish(error);
    }
  }

  /** The first reason counts. */
  #finish(end: LinkEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    clearTimeout(this.#late);
    this.#thread.terminate();
    this.#listening.reject(end);
    this.#open.reject(end);
    if (!this.#isClosed) this.#listener?.onEnd(end);
  }
}
