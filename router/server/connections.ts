/**
 * The connections of an HTTP server: how many there may be, and how long each may keep the server waiting. A connection
 * waits for a head, is being answered, or is idle between requests. When all places are taken, the connection that has
 * waited longest for its client makes room; one that is being answered is never cut for another.
 */

import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

import type { RequestError } from "../errors.ts";

/** How many connections, and how long each may be silent. */
export interface ConnectionLimits {
  readonly maxConnections: number;
  /** From the first byte (or the connection) to the end of a request's head. @default 10 s */
  readonly headMs: number;
  /** Between an answer and the next request. @default 65 s */
  readonly idleMs: number;
  /** A client that takes nothing of a finished answer for so long is disconnected. @default 2 min */
  readonly stallMs: number;
}

/** Defaults; 65 s outlives the 60 s of common load balancers. */
export const CONNECTION_DEFAULTS: Omit<ConnectionLimits, "maxConnections"> = {
  headMs: 10_000,
  idleMs: 65_000,
  stallMs: 120_000,
};

/** How often the limits are checked. */
const SWEEP_MS = 500;

/** A refused client may read why for so long. */
const LINGER_MS = 1000;

/** Requests that may wait on a connection for their turn; a client that sends more unanswered ones is cut off. */
const MAX_PIPELINED = 64;

/** All connections of one server; `close` must be called. */
export class Connections {
  readonly #limits: ConnectionLimits;
  readonly #onSlowHead: (socket: Socket) => void;
  readonly #all = new Map<string, Connection>();
  readonly #timer: ReturnType<typeof setInterval>;
  #allGone: PromiseWithResolvers<void> | undefined;

  /** @param onSlowHead refuses a client that began a head and did not end it in time */
  constructor(limits: ConnectionLimits, onSlowHead: (socket: Socket) => void) {
    this.#limits = limits;
    this.#onSlowHead = onSlowHead;
    this.#timer = setInterval(() => this.#sweep(), SWEEP_MS);
  }

  get size(): number {
    return this.#all.size;
  }

  /** A client has connected; of TLS connections, the socket below. */
  add(socket: Socket): void {
    if (this.#allGone !== undefined || (this.#all.size >= this.#limits.maxConnections && !this.#makeRoom())) {
      socket.destroy();
      return;
    }
    const connection = new Connection(socket);
    this.#all.set(connection.key, connection);
    // An error of a socket without a listener would end the process.
    socket.on("error", () => socket.destroy());
    socket.once("close", () => this.#remove(connection));
  }

  /**
   * A request has come on a connection. Pipelined ones take turns, so that a connection costs one at a time, and those of a
   * client that has left are never begun: of these the server does not say that they are over.
   * @param malformed aborted with a `RequestError` when what follows of its body is not valid HTTP
   * @param begin makes the answer
   */
  answer(socket: Socket, response: ServerResponse, malformed: AbortController, begin: () => void): void {
    const connection = this.#all.get(keyOf(socket));
    if (connection === undefined || connection.waiting >= MAX_PIPELINED) return void socket.destroy();
    response.once("close", () => {
      connection.end(response);
      const isLast = this.#allGone !== undefined || connection.isEnding;
      if (isLast && connection.isWaiting) connection.socket.destroySoon();
    });
    connection.begin(response, { malformed, begin });
    if (this.#allGone !== undefined) connection.finish();
  }

  /**
   * A connection gets no further request: its client may read why for a moment. A request that is being answered is
   * refused by its answer if its own body is at fault, and else answered; the connection ends after that.
   * @returns whether the reason is still to be written: neither by an answer, nor when it was refused before
   */
  refuse(socket: Socket, error: RequestError): boolean {
    const connection = this.#all.get(keyOf(socket));
    if (connection?.refuse()) return true;
    if (connection === undefined) socket.destroy();
    else if (!connection.isRefused) connection.endAfterAnswers(error);
    return false;
  }

  /** Closes what waits for its client, and the others once they are answered. Resolves when none is left. */
  drain(): Promise<void> {
    this.#allGone ??= Promise.withResolvers();
    for (const connection of this.#all.values()) connection.finish();
    if (this.#all.size === 0) this.#allGone.resolve();
    return this.#allGone.promise;
  }

  /** Cuts all connections. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const gone = this.drain();
    for (const { socket } of this.#all.values()) socket.destroy();
    await gone;
  }

  #makeRoom(): boolean {
    let longest: Connection | undefined;
    for (const connection of this.#all.values()) {
      if (connection.isWaiting && (longest === undefined || connection.sinceMs < longest.sinceMs)) longest = connection;
    }
    if (longest === undefined) return false;
    // Its `close` comes later; its place is free now.
    this.#remove(longest);
    longest.socket.destroy();
    return true;
  }

  #remove(connection: Connection): void {
    if (this.#all.get(connection.key) === connection) this.#all.delete(connection.key);
    if (this.#all.size === 0) this.#allGone?.resolve();
  }

  #sweep(): void {
    const nowMs = performance.now();
    for (const connection of this.#all.values()) {
      const verdict = connection.check(nowMs, this.#limits);
      if (verdict === "slow head") this.#onSlowHead(connection.socket);
      if (verdict === "close") connection.socket.destroy();
    }
  }
}

type Verdict = "keep" | "close" | "slow head";

/** A request whose answer is not sent yet. */
interface Pending {
  readonly malformed: AbortController;
  readonly begin: () => void;
}

class Connection {
  readonly socket: Socket;
  /** A closed socket has no addresses any more. */
  readonly key: string;
  /** Since when it has been in its phase. */
  sinceMs = performance.now();
  /** Whether it is closed once it is answered. */
  isEnding = false;
  /** In the order in which they came; the first is being answered. */
  readonly #answering = new Map<ServerResponse, Pending>();
  #phase: "head" | "answering" | "idle" | "refused" = "head";
  /** Bytes received when it became idle: more of them are the beginning of a head. */
  #idleBytes = 0;
  /** Bytes sent when it was last seen to take some. */
  #sentBytes = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    this.key = keyOf(socket);
  }

  /** Whether nothing is being answered on it. */
  get isWaiting(): boolean {
    return this.#answering.size === 0;
  }

  /** Requests that wait for their turn. */
  get waiting(): number {
    return Math.max(0, this.#answering.size - 1);
  }

  /** Begins now, or when the answers before it are sent. */
  begin(response: ServerResponse, pending: Pending): void {
    this.#answering.set(response, pending);
    this.#enter("answering");
    if (this.#answering.size === 1) pending.begin();
  }

  end(response: ServerResponse): void {
    const [answered] = this.#answering.keys();
    this.#answering.delete(response);
    const [next] = this.#answering.values();
    if (next !== undefined) {
      if (response === answered && !this.socket.destroyed) next.begin();
      return;
    }
    if (this.#phase === "refused") return;
    this.#idleBytes = this.socket.bytesRead;
    this.#enter("idle");
  }

  /** Ends now if nothing is being answered, else with the answers, which say so if they have not begun. */
  finish(): void {
    if (this.isWaiting) this.socket.destroy();
    for (const response of this.#answering.keys()) response.shouldKeepAlive = false;
  }

  /** What came after the requests that are being answered, or within the last one's body, is not valid HTTP. */
  endAfterAnswers(error: RequestError): void {
    this.isEnding = true;
    this.finish();
    for (const [{ req }, { malformed }] of this.#answering) {
      if (!req.complete) malformed.abort(error);
    }
  }

  get isRefused(): boolean {
    return this.#phase === "refused";
  }

  /** @returns whether it could be refused */
  refuse(): boolean {
    if (this.#phase !== "head" && this.#phase !== "idle") return false;
    this.#enter("refused");
    return true;
  }

  check(nowMs: number, { headMs, idleMs, stallMs }: ConnectionLimits): Verdict {
    if (this.#phase === "idle" && this.socket.bytesRead > this.#idleBytes) this.#enter("head");
    const waitedMs = nowMs - this.sinceMs;
    switch (this.#phase) {
      case "head":
        if (waitedMs <= headMs) return "keep";
        return this.socket.bytesRead > this.#idleBytes ? "slow head" : "close";
      case "idle":
        return waitedMs <= idleMs ? "keep" : "close";
      case "refused":
        return waitedMs <= LINGER_MS ? "keep" : "close";
      case "answering":
        return this.#isStalled(nowMs, stallMs) ? "close" : "keep";
    }
  }

  /** Whether everything was written long ago and the client takes none of it. */
  #isStalled(nowMs: number, stallMs: number): boolean {
    const [answered] = this.#answering.keys();
    const waitsForClient = answered?.writableEnded === true;
    if (!waitsForClient || this.socket.bytesWritten !== this.#sentBytes) {
      this.#sentBytes = this.socket.bytesWritten;
      this.sinceMs = nowMs;
    }
    return nowMs - this.sinceMs > stallMs;
  }

  #enter(phase: "head" | "answering" | "idle" | "refused"): void {
    this.#phase = phase;
    this.sinceMs = performance.now();
  }
}

/** The same for a TLS connection and the socket below it. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
