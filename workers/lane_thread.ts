/**
 * Entry of the thread of a lane: meets the peer, then reads and writes frames for as long as the lane lasts. What a socket costs, a
 * copy in the kernel each way and TLS where it is spoken, costs this thread's time and not that of the one which feeds the GPU. Knows
 * frames; knows nothing of what they hold. It ends with its owner, who terminates it.
 */

import { Acceptor } from "./acceptor.ts";
import { FRAME_LIMITS } from "./codec.ts";
import { FrameReader } from "./frame_reader.ts";
import { FrameWriter } from "./frame_writer.ts";
import { introduce } from "./handshake.ts";
import type { FromLane, LaneOrigin, ToLane } from "./lane_messages.ts";
import { asEnd } from "./link.ts";
import { dial, listenFor, type WorkerConn, type WorkerListener } from "./transport.ts";

/** What `deno check` lacks without the worker library: this file's own end of the channel. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToLane>) => void) | null;
  postMessage(message: FromLane): void;
}

const scope = globalThis as unknown as WorkerScope;

/** Bytes that may wait for a peer that does not read; a step waits for what it has sent long before that. */
const OUTGOING_BYTES = 512 << 20;

/** Bytes of frames that may have been read and not arrived yet: the main thread may be busy for a while. */
const MAX_UNTAKEN_BYTES = 64 << 20;

/** The connection, once there is one. */
interface OpenLane {
  readonly frames: FrameReader;
  readonly writer: FrameWriter;
}

let lane: OpenLane | undefined;
let untakenBytes = 0;
let onTaken: (() => void) | undefined;

scope.onmessage = ({ data }) => {
  switch (data.kind) {
    case "open":
      return void run(data.origin).catch(end);
    case "send":
      return send(data.pieces);
    case "taken":
      untakenBytes -= data.bytes;
      return onTaken?.();
    case "recycle":
      return lane?.frames.recycle(data.payload);
  }
};

function end(error: unknown): void {
  const { code, message } = asEnd(error);
  scope.postMessage({ kind: "ended", code, message });
}

function send(pieces: readonly Uint8Array[]): void {
  try {
    lane?.writer.add(pieces, () => scope.postMessage({ kind: "sent" }));
  } catch (error) {
    end(error);
  }
}

async function run(origin: LaneOrigin): Promise<void> {
  const conn = await meet(origin);
  conn.setNoDelay?.(NO_DELAY);
  const frames = new FrameReader(conn, FRAME_LIMITS, { shared: true });
  lane = { frames, writer: new FrameWriter(conn, { maxBytes: OUTGOING_BYTES, onFailed: end }) };
  scope.postMessage({ kind: "open" });
  for (let frame = await frames.next(); frame !== undefined; frame = await frames.next()) {
    scope.postMessage({ kind: "frame", ...frame });
    untakenBytes += frame.payload.byteLength;
    // Without a deadline: it ends with the thread, and those who wait for the frame have one.
    while (untakenBytes > MAX_UNTAKEN_BYTES) await new Promise<void>((resolve) => onTaken = resolve);
  }
  throw new Error("the peer closed it");
}

const NO_DELAY = true;

/** @throws {HandshakeError} and whatever keeps the connection from being made in time */
async function meet(origin: LaneOrigin): Promise<WorkerConn> {
  const { place, secret, deadlineMs, hostname } = origin;
  const signal = AbortSignal.timeout(deadlineMs);
  if (origin.kind === "dial") {
    const conn = await dial({ hostname, port: origin.port }, { trust: origin.trust, signal });
    const { epoch, dialer, listener } = place;
    const self = { role: "peer", epoch, workerIndex: listener, dialerIndex: dialer } as const;
    await introduce(conn, self, { secret, signal });
    return conn;
  }
  const listener = await listenNear(origin);
  // Strangers that come meanwhile are turned away without a word; the peer is the one that is waited for.
  const acceptor = new Acceptor(listener, { secret, onRefused: () => {}, onAcceptFailed: () => {} });
  try {
    scope.postMessage({ kind: "listening", port: listener.addr.port });
    return await acceptor.peer(place, signal);
  } finally {
    await acceptor.close();
  }
}

/** Listens at the port that is wanted; at any where that is taken, as several workers of one host may want the same. */
async function listenNear(
  { hostname, port, identity }: Extract<LaneOrigin, { readonly kind: "listen" }>,
): Promise<WorkerListener> {
  try {
    return await listenFor({ hostname, port }, identity);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EADDRINUSE")) throw error;
    return await listenFor({ hostname, port: 0 }, identity);
  }
}
