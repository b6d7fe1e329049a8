/**
 * Waits at a listening socket for the one peer that a process serves, and turns everybody else away.
 * Knows connections and handshakes; knows nothing of what the admitted peer will say.
 */

import { HandshakeError } from "./errors.ts";
import { admit, type HandshakeOptions, type Introduction, type Role } from "./handshake.ts";

/** Strangers who may be in a handshake at the same time; the next one is hung up on. */
const MAX_PENDING = 16;

/** The peer that was let in. */
export interface Admitted {
  readonly conn: Deno.TcpConn;
  readonly peer: Introduction;
}

/** How to wait. */
export interface ReceptionOptions extends HandshakeOptions {
  /** The listening side's own role. */
  readonly role: Role;
  /** Told about everybody who was turned away. */
  readonly onRefused: (error: HandshakeError) => void;
  /** Ends the wait; its reason is thrown. */
  readonly signal: AbortSignal;
}

/**
 * Admits the first peer that passes the handshake, then closes the listener and every other connection.
 * @throws the signal's reason, or whatever broke the listener
 */
export async function admitFirst(listener: Deno.TcpListener, options: ReceptionOptions): Promise<Admitted> {
  const admitted = Promise.withResolvers<Admitted>();
  const over = new AbortController();
  const abort = () => {
    over.abort();
    admitted.reject(options.signal.reason);
  };
  options.signal.addEventListener("abort", abort, { once: true });
  if (options.signal.aborted) abort();

  const meetings = new Set<Promise<void>>();
  const meet = async (conn: Deno.TcpConn) => {
    try {
      const peer = await admit(conn, options.role, { ...options, signal: over.signal });
      if (over.signal.aborted) return conn.close();
      over.abort();
      admitted.resolve({ conn, peer });
    } catch (error) {
      if (!over.signal.aborted) options.onRefused(error as HandshakeError);
    }
  };
  const accept = async () => {
    for await (const conn of listener) {
      if (meetings.size >= MAX_PENDING) {
        conn.close();
        options.onRefused(new HandshakeError("handshake_failed", `Cannot shake hands: ${MAX_PENDING} peers are at it`));
        continue;
      }
      const meeting = meet(conn);
      meetings.add(meeting);
      meeting.then(() => meetings.delete(meeting));
    }
  };
  const accepting = accept().catch(admitted.reject);

  try {
    return await admitted.promise;
  } finally {
    over.abort();
    options.signal.removeEventListener("abort", abort);
    listener.close();
    await Promise.all([accepting, ...meetings]);
  }
}
