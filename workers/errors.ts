/**
 * The closed families of errors that links between processes raise, and what a worker process refuses at its acceptor.
 * Knows connections and frames; knows nothing of HTTP or of what the messages mean.
 */

import { CodedError } from "../kernels/errors.ts";

/** The peer sent bytes that are no frame, or a message of the wrong shape; the link is unusable. */
export class ProtocolError extends CodedError<"protocol"> {
  constructor(message: string, options?: ErrorOptions) {
    super("protocol", message, options);
  }
}

/** What can go wrong with a link whose bytes are fine. */
export type LinkErrorCode =
  /** The peer is gone, or this side closed the link. */
  | "link_closed"
  /** Nothing came within the deadline; the link itself is still usable. */
  | "link_timeout"
  /** The peer does not read, and the queue of outgoing frames is full. */
  | "link_overflow";

/** Raised by `link.ts`. */
export class LinkError extends CodedError<LinkErrorCode> {}

/** Why two processes did not come together. */
export type HandshakeErrorCode = "wrong_secret" | "wrong_version" | "handshake_timeout" | "handshake_failed";

/** Raised by `handshake.ts`. */
export class HandshakeError extends CodedError<HandshakeErrorCode> {}

/** Why a worker has not got what the others of its group were to send. */
export type PeerErrorCode =
  /** The link to a peer is over, was never made, or carried what cannot be used. */
  | "peer_lost"
  /** A peer, or the router, has not sent something within the deadline. */
  | "peer_late"
  /** The router has ended the epoch. */
  | "epoch_over";

/** Raised by whatever waits for the peers of a group; the worker itself is well, and can take part in the next epoch. */
export class PeerError extends CodedError<PeerErrorCode> {
  /** Index of the peer, when it is one peer's fault. */
  readonly peer: number | undefined;

  constructor(code: PeerErrorCode, message: string, options: ErrorOptions & { readonly peer?: number } = {}) {
    super(code, message, options);
    this.peer = options.peer;
  }
}

/** Why a worker process does not start to listen. */
export type WorkerErrorCode = "insecure_listen" | "no_secret" | "no_router";

/** Raised by `worker.ts`. */
export class WorkerError extends CodedError<WorkerErrorCode> {}
