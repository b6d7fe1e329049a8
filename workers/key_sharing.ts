/**
 * Whether the workers of a group are all on one host, which then pass keys and values through its memory: each offers a file when it
 * first has something to pass, and uses it once all others have it open. Until then, and elsewhere, messages go through sockets.
 * Knows offers and peers; knows nothing of what is passed.
 */

import { PeerError, ProtocolError } from "./errors.ts";
import type { PeerMessage } from "./peer_protocol.ts";
import { SharedInbox, SharedOutbox, type SharedPlace } from "./shared_file.ts";

/** What workers say about it. */
export type SharingMessage = Extract<PeerMessage, { readonly kind: "offer" | "reached" }>;

/** Whom a worker may share memory with. */
export interface KeySharingOptions {
  readonly epoch: number;
  readonly peers: readonly number[];
  readonly send: (peer: number, message: SharingMessage) => void;
}

/** The sharing of one epoch; `close` must be called. */
export class KeySharing {
  readonly #options: KeySharingOptions;
  #outbox: SharedOutbox | undefined;
  #isOffered = false;
  readonly #inboxes = new Map<number, SharedInbox>();
  /** Whether a peer can read what this worker writes, as far as it has answered. */
  readonly #reached = new Map<number, boolean>();
  #isClosed = false;

  constructor(options: KeySharingOptions) {
    this.#options = options;
  }

  /**
   * Takes what a peer says.
   * @throws {ProtocolError} when it is of another epoch, or a second offer
   */
  receive(peer: number, message: SharingMessage): void {
    const { epoch, peers, send } = this.#options;
    if (message.epoch !== epoch) {
      throw new ProtocolError(`Cannot take ${message.kind} of epoch ${message.epoch}: this is ${epoch}`);
    }
    if (this.#isClosed) return;
    if (message.kind === "reached") {
      this.#reached.set(peer, message.isReached);
      if (this.#reached.size === peers.length) this.#outbox?.unlink();
      return;
    }
    if (this.#inboxes.has(peer)) throw new ProtocolError(`Cannot take offer: worker ${peer} has made one already`);
    const inbox = SharedInbox.open(message);
    if (inbox !== undefined) this.#inboxes.set(peer, inbox);
    send(peer, { kind: "reached", epoch, isReached: inbox !== undefined });
  }

  /** Passes bytes to all peers. @returns undefined when they must go through sockets */
  put(bytes: Uint8Array): SharedPlace | undefined {
    if (!this.#isOffered && !this.#isClosed) this.#offer();
    const isReached = this.#options.peers.every((peer) => this.#reached.get(peer));
    return isReached ? this.#outbox?.put(bytes) : undefined;
  }

  #offer(): void {
    const { epoch, peers, send } = this.#options;
    this.#isOffered = true;
    this.#outbox = SharedOutbox.create();
    if (this.#outbox === undefined) return;
    for (const peer of peers) send(peer, { kind: "offer", epoch, ...this.#outbox.offer });
  }

  /** All peers have read what was put there. */
  free(place: SharedPlace): void {
    this.#outbox?.free(place);
  }

  /**
   * Reads what a peer has put.
   * @throws {PeerError} `peer_lost` when it is not there
   */
  read(peer: number, place: SharedPlace, into: Uint8Array): void {
    const inbox = this.#inboxes.get(peer);
    if (inbox?.read(place, into)) return;
    const why = inbox === undefined
      ? "it is not shared, or no longer"
      : `slot ${place.slot} holds ${place.bytes} bytes, expected ${into.length}`;
    throw new PeerError("peer_lost", `Cannot read memory of worker ${peer}: ${why}`, { peer });
  }

  /** Nothing is passed any more; harmless when it is closed. */
  close(): void {
    this.#isClosed = true;
    this.#outbox?.close();
    for (const inbox of this.#inboxes.values()) inbox.close();
    this.#inboxes.clear();
  }
}
