/** Where a worker is, and the way to it. Knows addresses and secrets; knows nothing of messages. */

import { messageOf } from "../../kernels/errors.ts";
import type { Address } from "../../workers/protocol.ts";
import { introduce } from "../../workers/handshake.ts";
import { RequestError } from "../errors.ts";
import { dial, type TlsTrust, type WorkerConn } from "../../workers/transport.ts";

const CONNECT_MS = 5000;

/** Where a worker is, and who it is to be. */
export interface WorkerPlace extends Address {
  readonly secret: string | undefined;
  /** Undefined: in clear text. */
  readonly trust?: TlsTrust | undefined;
  readonly epoch: number;
  readonly workerIndex: number;
}

/**
 * Connects and shakes hands; the caller owns the connection.
 * @throws {RequestError} `worker_lost` when nothing listens
 * @throws {HandshakeError} when the other side is not a worker that holds the secret; the connection is closed then
 */
export async function dialWorker(place: WorkerPlace): Promise<WorkerConn> {
  const { hostname, port, secret, trust, epoch, workerIndex } = place;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), CONNECT_MS);
  let conn: WorkerConn;
  try {
    conn = await dial({ hostname, port }, { trust, signal: late.signal });
  } catch (cause) {
    const isTls = trust !== undefined && !(cause instanceof Deno.errors.ConnectionRefused) && !late.signal.aborted;
    const why = isTls ? `: TLS: ${messageOf(cause)}` : "";
    throw new RequestError("worker_lost", `Cannot reach worker at ${hostname}:${port}${why}`, { cause });
  } finally {
    clearTimeout(timer);
  }
  await introduce(conn, { role: "router", epoch, workerIndex }, { secret });
  return conn;
}
