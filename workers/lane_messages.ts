/**
 * What a worker's main thread and the thread of a lane say to each other. A lane is a second connection to a peer, for what is
 * large: its thread owns it, and alone reads and writes it. Payloads lie in memory that both threads share, so that none is copied
 * on its way between them. Knows messages; knows nothing of what either side does with them.
 */

import type { PeerPlace } from "./acceptor.ts";
import type { LinkEnd } from "./link.ts";
import type { TlsIdentity, TlsTrust } from "./transport.ts";

/**
 * From this size on a message takes its peer's lane: handing it to another thread and back takes as long as passing on a few
 * hundred KB.
 */
export const MIN_LANE_BYTES = 512 << 10;

/** Between workers that send each other chunks of a prompt of this size there are lanes. */
export const LANE_CHUNK_BYTES = 2 << 20;

/** Where a lane comes from: the peer of lower index listens for it, and the other one dials. */
export type LaneOrigin =
  & {
    readonly place: PeerPlace;
    /** Of the whole group. */
    readonly secret: string | undefined;
    /** For the peers to meet. */
    readonly deadlineMs: number;
  }
  & ({
    readonly kind: "listen";
    readonly hostname: string;
    /** Any other one where this is taken. */
    readonly port: number;
    readonly identity: TlsIdentity | undefined;
  } | {
    readonly kind: "dial";
    readonly hostname: string;
    readonly port: number;
    readonly trust: TlsTrust | undefined;
  });

/** What the thread is asked to do. */
export type ToLane =
  | { readonly kind: "open"; readonly origin: LaneOrigin }
  /** A frame, as pieces to be written back to back; those in shared memory must not change before it is sent. */
  | { readonly kind: "send"; readonly pieces: readonly Uint8Array[] }
  /** So many bytes of frames have arrived: as many more may be read. */
  | { readonly kind: "taken"; readonly bytes: number }
  /** The memory of a payload is free for another one. */
  | { readonly kind: "recycle"; readonly payload: SharedArrayBuffer };

/** What the thread answers, and what comes from the peer. */
export type FromLane =
  | { readonly kind: "listening"; readonly port: number }
  | { readonly kind: "open" }
  /** The frame has left that was given earliest. */
  | { readonly kind: "sent" }
  | { readonly kind: "frame"; readonly header: Uint8Array; readonly payload: ArrayBufferLike }
  /** The lane cannot be used any more, or never could; nothing follows. */
  | { readonly kind: "ended"; readonly code: LinkEnd["code"]; readonly message: string };
