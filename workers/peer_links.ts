/**
 * The links between the workers of a group, one for each pair and epoch: how they come about, and how messages travel on
 * them. A reader always runs on each. Knows connections and peers; knows nothing of what the messages hold.
 */

import { messageOf } from "../kernels/errors.ts";
import type { Acceptor } from "./acceptor.ts";
import { LinkError, PeerError, ProtocolError } from "./errors.ts";
import { introduce } from "./handshake.ts";
import type { Lane } from "./lane.ts";
import { Link, type LinkOptions } from "./link.ts";
import type { Mailbox } from "./mailbox.ts";
import { isShared, parsePeerMessage, type PeerMessage } from "./peer_protocol.ts";
import type { Form } from "./protocol.ts";
import { dial, type TlsTrust, type WorkerConn } from "./transport.ts";

type PeerLink = Link<PeerMessage, PeerMessage>;

/** Frames of several layers may wait for a peer that computes. */
const LINK_OPTIONS: LinkOptions<PeerMessage> = { parse: parsePeerMessage, outgoingBytes: 512 << 20 };

/** How to meet the other workers of a group. */
export interface MeetOptions {
  readonly acceptor: Pick<Acceptor, "peer">;
  readonly secret: string | undefined;
  /** Undefined: in clear text. */
  readonly trust?: TlsTrust | undefined;
  /** Gives up; its reason is a `PeerError`. */
  readonly signal: AbortSignal;
}

/**
 * Connects a worker with all others of its group: it dials those of lower index, and those of higher index dial it.
 * @returns connections by the peers' indices; the caller owns them
 * @throws {PeerError} naming the peer that cannot be reached; no connection is left then
 */
export async function meetPeers(form: Form, options: MeetOptions): Promise<ReadonlyMap<number, WorkerConn>> {
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const conns = new Map<number, WorkerConn>();
  const meetings = form.members.keys().filter((peer) => peer !== form.index).map(async (peer) => {
    try {
      conns.set(peer, await meet(form, peer, { ...options, signal }));
    } catch (error) {
      failed.abort(error);
    }
  });
  await Promise.all(meetings);
  if (!signal.aborted) return conns;
  for (const conn of conns.values()) conn.close();
  throw signal.reason;
}

async function meet(form: Form, peer: number, { acceptor, secret, trust, signal }: MeetOptions): Promise<WorkerConn> {
  const { epoch, index } = form;
  if (peer > index) return await acceptor.peer({ epoch, dialer: peer, listener: index }, signal);
  const { hostname, port } = form.members[peer] ?? { hostname: "", port: 0 };
  try {
    const conn = await dial({ hostname, port }, { trust, signal });
    await introduce(conn, { role: "peer", epoch, workerIndex: peer, dialerIndex: index }, { secret, signal });
    return conn;
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    const reason = messageOf(cause);
    throw new PeerError("peer_lost", `Cannot reach worker ${peer} at ${hostname}:${port}: ${reason}`, { peer, cause });
  }
}

/** Whom the links of an epoch belong to. */
export interface PeerLinksOptions {
  readonly mailbox: Mailbox;
  /** By peer, for what is large; owned by the links from now on. @default everything takes the links */
  readonly lanes?: ReadonlyMap<number, Lane>;
  /** Called once, when the first link ends by itself. */
  readonly onLost: (error: PeerError) => void;
}

/** The links of one epoch; they own the connections given. When one ends, all are unusable. */
export class PeerLinks {
  readonly #options: PeerLinksOptions;
  readonly #links: ReadonlyMap<number, PeerLink>;
  readonly #lanes: ReadonlyMap<number, Lane>;
  readonly #readers: readonly Promise<void>[];
  #isOver = false;

  constructor(conns: ReadonlyMap<number, WorkerConn>, options: PeerLinksOptions) {
    this.#options = options;
    this.#links = new Map(conns.entries().map(([peer, conn]) => [peer, new Link(conn, LINK_OPTIONS)]));
    this.#readers = [...this.#links.entries().map(([peer, link]) => this.#read(peer, link))];
    this.#lanes = options.lanes ?? new Map();
    for (const [peer, lane] of this.#lanes) {
      lane.listen({
        onMessage: (message) => options.mailbox.put(peer, message),
        onEnd: (end) => this.#lose(peer, end),
      });
    }
  }

  /** Indices of the peers, ascending. */
  get peers(): readonly number[] {
    return [...this.#links.keys()].sort((a, b) => a - b);
  }

  /**
   * Queues a message to a peer; one in memory that threads share takes the peer's lane, and may overtake others.
   * @param onSent called when it has left
   * @throws {PeerError} `peer_lost`
   */
  send(peer: number, message: PeerMessage, onSent?: () => void): void {
    try {
      const link = this.#links.get(peer);
      if (link === undefined) throw new Error(`Cannot send ${message.kind}: there is no link to worker ${peer}`);
      const way = isShared(message) ? this.#lanes.get(peer) ?? link : link;
      way.send(message, onSent);
    } catch (error) {
      if (error instanceof LinkError || error instanceof ProtocolError) throw lost(peer, error);
      throw error;
    }
  }

  /** Takes back the memory of a message that is used up. */
  recycle(peer: number, payload: ArrayBufferLike): void {
    if (payload instanceof SharedArrayBuffer) this.#lanes.get(peer)?.recycle(payload);
    else this.#links.get(peer)?.recycle(payload);
  }

  /** Ends all links; harmless when they are over. */
  async close(): Promise<void> {
    this.#isOver = true;
    for (const lane of this.#lanes.values()) lane.close();
    await Promise.all([...this.#links.values().map((link) => link.close()), ...this.#readers]);
  }

  async #read(peer: number, link: PeerLink): Promise<void> {
    try {
      for await (const message of link) this.#options.mailbox.put(peer, message);
    } catch (error) {
      this.#lose(peer, error);
    }
  }

  #lose(peer: number, cause: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#options.onLost(lost(peer, cause));
  }
}

function lost(peer: number, cause: unknown): PeerError {
  const reason = messageOf(cause);
  return new PeerError("peer_lost", `Cannot reach worker ${peer}: ${reason}`, { peer, cause });
}
