/**
 * Where a worker listens, as long as it lives: lets in the one router it serves, then the peers of each group it
 * joins, and turns all others away. Knows connections and handshakes; knows nothing of messages.
 */

import { HandshakeError, PeerError } from "./errors.ts";
import { admit, type Introduction } from "./handshake.ts";
import { type PendingHandshake, PendingHandshakes } from "./pending_handshakes.ts";
import type { WorkerConn, WorkerListener } from "./transport.ts";

/** After a failure to accept, for lack of descriptors or memory: first and longest pause before the next try. */
const FIRST_PAUSE_MS = 20;
const MAX_PAUSE_MS = 1000;

/** Failures of `accept` that pass; after any other the listener is unusable. */
const PASSING_FAILURES: ReadonlySet<unknown> = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED"]);

/** Peers that may wait until this worker joins their group; the one that waited longest has to go first. */
const MAX_EARLY = 16;

/** The router that was let in. */
export interface Admitted {
  readonly conn: WorkerConn;
  readonly peer: Introduction;
}

/** Who may come in. */
export interface AcceptorOptions {
  readonly secret: string | undefined;
  /** Called for each connection that was turned away. */
  readonly onRefused: (error: HandshakeError) => void;
  /** Called when connections cannot be accepted for now. */
  readonly onAcceptFailed: (error: Error) => void;
}

/** One end of a link between workers, as both know it. */
export interface PeerPlace {
  readonly epoch: number;
  /** Index of the worker that dials. */
  readonly dialer: number;
  /** Index of the worker that is dialed. */
  readonly listener: number;
}

/** Listens from its making until `close`. */
export class Acceptor {
  readonly #listener: WorkerListener;
  readonly #options: AcceptorOptions;
  readonly #closing = new AbortController();
  readonly #meetings = new Set<Promise<void>>();
  readonly #pending = new PendingHandshakes();
  readonly #accepting: Promise<void>;
  readonly #router = Promise.withResolvers<Admitted>();
  #isRouterIn = false;
  /** Connections of peers that are not wanted yet, and callers that wait for peers that have not come yet. */
  readonly #early = new Map<string, { readonly epoch: number; readonly conn: WorkerConn }>();
  readonly #expected = new Map<string, (conn: WorkerConn) => void>();

  constructor(listener: WorkerListener, options: AcceptorOptions) {
    this.#listener = listener;
    this.#options = options;
    this.#accepting = this.#accept();
  }

  /** Where it listens. */
  get address(): WorkerListener["addr"] {
    return this.#listener.addr;
  }

  /**
   * The first router that passes the handshake; later ones are turned away.
   * @throws the signal's reason, or whatever broke the listener
   */
  async router(signal: AbortSignal): Promise<Admitted> {
    const abort = () => this.#router.reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    try {
      return await this.#router.promise;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /**
   * The connection of a peer that dials this worker, whether it came already or is still to come. Peers of earlier epochs
   * that are not wanted are turned away.
   * @throws the signal's reason
   */
  peer(place: PeerPlace, signal: AbortSignal): Promise<WorkerConn> {
    for (const [key, { epoch, conn }] of this.#early) {
      if (epoch >= place.epoch) continue;
      this.#early.delete(key);
      conn.close();
    }
    const key = keyOf(place);
    const early = this.#early.get(key);
    this.#early.delete(key);
    if (early !== undefined) return Promise.resolve(early.conn);
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#expected.delete(key);
        reject(signal.reason);
      };
      this.#expected.set(key, (conn) => {
        this.#expected.delete(key);
        signal.removeEventListener("abort", abort);
        resolve(conn);
      });
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
    });
  }

  /** Stops listening, and hangs up on all connections that were not handed on. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#listener.close();
    await Promise.all([this.#accepting, ...this.#meetings]);
    for (const { conn } of this.#early.values()) conn.close();
    this.#early.clear();
  }

  async #accept(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!this.#closing.signal.aborted) {
      try {
        this.#greet(await this.#listener.accept());
        pauseMs = FIRST_PAUSE_MS;
      } catch (error) {
        if (this.#closing.signal.aborted) break;
        if (!isPassing(error)) {
          this.#router.reject(error);
          break;
        }
        this.#options.onAcceptFailed(error);
        await this.#pause(pauseMs);
        pauseMs = Math.min(MAX_PAUSE_MS, 2 * pauseMs);
      }
    }
    // There may be no caller waiting for it.
    this.#router.promise.catch(() => {});
    this.#router.reject(new PeerError("peer_lost", "Cannot wait for a router: the acceptor is closed"));
  }

  #greet(conn: WorkerConn): void {
    let pending: PendingHandshake;
    try {
      pending = this.#pending.begin(conn.remoteAddr.hostname ?? "");
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      conn.close();
      this.#options.onRefused(error);
      return;
    }
    const meeting = this.#meet(conn, pending).finally(() => this.#pending.end(pending));
    this.#meetings.add(meeting);
    meeting.then(() => this.#meetings.delete(meeting));
  }

  /** Ends early when the acceptor is closed. */
  async #pause(ms: number): Promise<void> {
    const closing = this.#closing.signal;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      function done() {
        clearTimeout(timer);
        closing.removeEventListener("abort", done);
        resolve();
      }
      closing.addEventListener("abort", done);
    });
  }

  async #meet(conn: WorkerConn, { address, signal }: PendingHandshake): Promise<void> {
    const { secret, onRefused } = this.#options;
    let peer: Introduction;
    try {
      peer = await admit(conn, "worker", { secret, signal: AbortSignal.any([this.#closing.signal, signal]) });
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      if (!this.#closing.signal.aborted) onRefused(error);
      return;
    }
    this.#pending.recognize(address);
    if (this.#closing.signal.aborted) return conn.close();
    if (peer.role === "peer") return this.#letIn(conn, peer);
    if (this.#isRouterIn) return this.#refuse(conn, "another router is served");
    this.#isRouterIn = true;
    this.#router.resolve({ conn, peer });
  }

  #letIn(conn: WorkerConn, peer: Extract<Introduction, { readonly role: "peer" }>): void {
    const key = keyOf({ epoch: peer.epoch, dialer: peer.dialerIndex, listener: peer.workerIndex });
    const expected = this.#expected.get(key);
    if (expected !== undefined) return expected(conn);
    const oldest = this.#early.has(key)
      ? key
      : this.#early.size < MAX_EARLY
      ? undefined
      : this.#early.keys().next().value;
    if (oldest !== undefined) {
      const early = this.#early.get(oldest);
      this.#early.delete(oldest);
      if (early !== undefined) this.#refuse(early.conn, `${this.#early.size + 1} peers wait for their group`);
    }
    this.#early.set(key, { epoch: peer.epoch, conn });
  }

  #refuse(conn: WorkerConn, reason: string): void {
    conn.close();
    this.#options.onRefused(new HandshakeError("handshake_failed", `Cannot shake hands: ${reason}`));
  }
}

function keyOf({ epoch, dialer, listener }: PeerPlace): string {
  return `${epoch} ${dialer}→${listener}`;
}

function isPassing(error: unknown): error is Error {
  return error instanceof Error && "code" in error && PASSING_FAILURES.has(error.code);
}
