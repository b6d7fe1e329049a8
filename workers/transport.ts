/**
 * Connections between router and workers, clear or in TLS, and how each side gets one. Knows sockets and certificates;
 * who is at the other end is found out by the handshake that follows.
 */

import { once } from "node:events";
import { createServer, type Server, type TLSSocket } from "node:tls";

/** One connection; those of Deno are such. */
export interface WorkerConn {
  /** Undefined for one whose address is not known any more. */
  readonly remoteAddr: { readonly hostname?: string };
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
  /** Absent where it was said when the connection was made. */
  setNoDelay?(noDelay?: boolean): void;
}

/** Fills `into`. @returns false when the other side closed the connection before */
export async function readFully(conn: Pick<WorkerConn, "read">, into: Uint8Array): Promise<boolean> {
  for (let filled = 0; filled < into.length;) {
    const got = await conn.read(into.subarray(filled));
    if (got === null) return false;
    filled += got;
  }
  return true;
}

/** Writes all bytes. */
export async function writeFully(conn: Pick<WorkerConn, "write">, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await conn.write(bytes.subarray(written));
}

/** Where connections come in; a listener of Deno is one. */
export interface WorkerListener {
  readonly addr: { readonly hostname: string; readonly port: number };
  accept(): Promise<WorkerConn>;
  close(): void;
}

/** What a side that listens shows, as PEM. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
}

/** What a side that dials checks certificates against. */
export interface TlsTrust {
  /** Certificates of issuers, or those of the workers themselves, as PEM. */
  readonly ca: string;
  /** What certificates must be made out to, in place of the host that is dialed: workers are often dialed by addresses. */
  readonly name?: string;
}

const NO_DELAY = true;
/** For TLS itself; what follows has a deadline of its own. */
const TLS_HANDSHAKE_MS = 3000;
/** That have not yet been accepted; a group has fewer workers. */
const MAX_UNACCEPTED = 64;

/**
 * Connects to a worker.
 * @param trust undefined: in clear text
 * @throws whatever keeps the connection from being made, such as a certificate that is not accepted
 */
export async function dial(
  { hostname, port }: { readonly hostname: string; readonly port: number },
  { trust, signal }: { readonly trust: TlsTrust | undefined; readonly signal: AbortSignal },
): Promise<WorkerConn> {
  const conn = await Deno.connect({ hostname, port, signal });
  conn.setNoDelay(NO_DELAY);
  if (trust === undefined) return conn;
  const secured = await Deno.startTls(conn, { hostname: trust.name ?? hostname, caCerts: [trust.ca] });
  const abort = () => secured.close();
  signal.addEventListener("abort", abort, { once: true });
  const late = setTimeout(abort, TLS_HANDSHAKE_MS);
  try {
    await secured.handshake();
    return secured;
  } catch (error) {
    if (!signal.aborted) closeQuietly(secured);
    throw error;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", abort);
  }
}

/** It may have been closed by the deadline. */
function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}

/** Listens. @param identity undefined: in clear text */
export async function listenFor(
  address: { readonly hostname: string; readonly port: number },
  identity: TlsIdentity | undefined,
): Promise<WorkerListener> {
  if (identity === undefined) return Deno.listen({ transport: "tcp", ...address });
  // Deno's own TLS listener delays small writes by up to 44 ms, and cannot be told not to.
  const server = createServer({ ...identity, handshakeTimeout: TLS_HANDSHAKE_MS });
  server.listen(address.port, address.hostname);
  await once(server, "listening");
  return new TlsListener(server);
}

/** See the top of this file. */
class TlsListener implements WorkerListener {
  readonly addr: { readonly hostname: string; readonly port: number };
  readonly #server: Server;
  readonly #waiting: TLSSocket[] = [];
  #wake: () => void = () => {};
  #isClosed = false;

  constructor(server: Server) {
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("Cannot listen: the server has no address");
    this.addr = { hostname: address.address, port: address.port };
    this.#server = server;
    server.on("secureConnection", (socket: TLSSocket) => this.#take(socket));
    // A stranger that does not speak TLS is not a failure of the listener.
    server.on("tlsClientError", (_, socket) => socket.destroy());
  }

  async accept(): Promise<WorkerConn> {
    while (this.#waiting.length === 0) {
      if (this.#isClosed) throw new Deno.errors.BadResource("the listener is closed");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const socket = this.#waiting.shift();
    if (socket === undefined) throw new Error("Cannot accept: another accept is waiting already");
    return new TlsSocketConn(socket);
  }

  close(): void {
    this.#isClosed = true;
    this.#server.close();
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    this.#wake();
  }

  #take(socket: TLSSocket): void {
    if (this.#isClosed || this.#waiting.length >= MAX_UNACCEPTED) return void socket.destroy();
    socket.setNoDelay(NO_DELAY);
    this.#waiting.push(socket);
    this.#wake();
  }
}

/** A socket of Node as Deno's connections are: read when asked, written until handed over. */
class TlsSocketConn implements WorkerConn {
  readonly remoteAddr: { readonly hostname?: string };
  readonly #socket: TLSSocket;
  #rest: Uint8Array | undefined;
  #error: Error | undefined;
  #isClosed = false;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    const { remoteAddress } = socket;
    this.remoteAddr = remoteAddress === undefined ? {} : { hostname: remoteAddress };
    socket.on("error", (error) => this.#error = error);
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      if (this.#isClosed) throw new Deno.errors.BadResource("the connection is closed");
      const chunk: Uint8Array | null = this.#rest ?? this.#socket.read();
      if (chunk !== null) {
        const count = Math.min(chunk.length, into.length);
        into.set(chunk.subarray(0, count));
        this.#rest = count < chunk.length ? chunk.subarray(count) : undefined;
        return count;
      }
      if (this.#error !== undefined) throw new Deno.errors.ConnectionReset(this.#error.message);
      if (this.#socket.readableEnded) return null;
      if (this.#socket.destroyed) throw new Deno.errors.ConnectionReset("the connection broke");
      await this.#change();
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#socket.write(bytes, (error) => {
        if (error) reject(new Deno.errors.ConnectionReset(error.message));
        else resolve(bytes.length);
      });
    });
  }

  closeWrite(): Promise<void> {
    return new Promise((resolve) => this.#socket.end(resolve));
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.destroy();
  }

  #change(): Promise<void> {
    const events = ["readable", "end", "close", "error"] as const;
    return new Promise((resolve) => {
      const changed = () => {
        for (const event of events) this.#socket.off(event, changed);
        resolve();
      };
      for (const event of events) this.#socket.on(event, changed);
    });
  }
}

/** The first byte of a TLS record: what a side sees whose peer speaks TLS while it does not itself. */
const TLS_RECORDS: readonly (number | undefined)[] = [0x15, 0x16];

/** Whether bytes that make no sense are TLS. */
export function looksLikeTls([first]: Uint8Array): boolean {
  return TLS_RECORDS.includes(first);
}
