/**
 * Two processes prove to each other that they hold the same secret, before a single byte is parsed as a message.
 * Fixed-size binary, mutual: each side signs both hellos (role, epoch, worker index, nonce) under its own role, so that
 * neither a reflected nor a replayed proof passes. The side that dials proves itself first: a stranger that connects
 * gets nothing that a weak secret could be guessed from. Knows bytes and deadlines; knows nothing of messages.
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import { HandshakeError } from "./errors.ts";
import { PROTOCOL_VERSION } from "./protocol.ts";
import { looksLikeTls, readFully, type WorkerConn, writeFully } from "./transport.ts";

/** Who speaks; a peer is a worker that dials another one. */
export type Role = "router" | "worker" | "peer";

/** What a dialing side says it is, and what both sides sign. */
export type Introduction =
  & {
    readonly epoch: number;
    /** Of the worker that is dialed. */
    readonly workerIndex: number;
  }
  & ({ readonly role: "router" | "worker" } | { readonly role: "peer"; readonly dialerIndex: number });

/** What both sides of a handshake must agree on. */
export interface HandshakeOptions {
  /** Undefined: open, fit for loopback only. */
  readonly secret: string | undefined;
  /** @default 3000 */
  readonly deadlineMs?: number;
  /** Reported apart from a wrong secret; only tests speak another one. @default PROTOCOL_VERSION */
  readonly version?: number;
  /** Aborts the handshake; a reason that is a `HandshakeError` is thrown as it is. */
  readonly signal?: AbortSignal;
}

const DEADLINE_MS = 3000;
const LITTLE_ENDIAN = true;

/** The first 12 bytes keep their place in every version: magic, version, role, a zero. */
const MAGIC = new TextEncoder().encode("TIDEPOOL");
const LEAD_BYTES = 12;
const NONCE_BYTES = 32;
const HELLO_BYTES = LEAD_BYTES + 12 + NONCE_BYTES;
const PROOF_BYTES = 32;

/** What a peer of another version may still send before it is cut off. */
const LINGER_BYTES = 1024;

const ROLES: readonly Role[] = ["router", "worker", "peer"];
const ADMITTED = 1;
const WRONG_SECRET = 2;

interface Hello {
  readonly role: Role;
  readonly epoch: number;
  readonly workerIndex: number;
  /** 0 unless a peer dials. */
  readonly dialerIndex: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

function writeHello(introduction: Omit<Hello, "bytes">, version: number): Hello {
  const bytes = new Uint8Array(HELLO_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint16(8, version, LITTLE_ENDIAN);
  view.setUint8(10, ROLES.indexOf(introduction.role));
  view.setUint32(LEAD_BYTES, introduction.epoch, LITTLE_ENDIAN);
  view.setUint32(LEAD_BYTES + 4, introduction.workerIndex, LITTLE_ENDIAN);
  view.setUint32(LEAD_BYTES + 8, introduction.dialerIndex, LITTLE_ENDIAN);
  crypto.getRandomValues(bytes.subarray(HELLO_BYTES - NONCE_BYTES));
  return { ...introduction, bytes };
}

/** Reads a hello in two parts, because only its lead has the same size in every version. */
async function readHello(conn: WorkerConn, version: number): Promise<Hello> {
  const bytes = new Uint8Array(HELLO_BYTES);
  await receive(conn, bytes.subarray(0, LEAD_BYTES));
  if (MAGIC.some((byte, i) => bytes[i] !== byte)) {
    const what = looksLikeTls(bytes)
      ? "the peer speaks TLS, and this side does not (--tls-cert of a worker, --join-tls-ca of a router)"
      : "the peer does not speak this protocol";
    throw new HandshakeError("handshake_failed", `Cannot shake hands: ${what}`);
  }
  const view = new DataView(bytes.buffer);
  const peerVersion = view.getUint16(8, LITTLE_ENDIAN);
  if (peerVersion !== version) {
    throw new HandshakeError(
      "wrong_version",
      `Cannot shake hands: the peer speaks protocol version ${peerVersion}, this side ${version}`,
    );
  }
  const role = ROLES[view.getUint8(10)];
  if (role === undefined) {
    throw new HandshakeError("handshake_failed", "Cannot shake hands: the peer's role is unknown");
  }
  await receive(conn, bytes.subarray(LEAD_BYTES));
  return {
    role,
    epoch: view.getUint32(LEAD_BYTES, LITTLE_ENDIAN),
    workerIndex: view.getUint32(LEAD_BYTES + 4, LITTLE_ENDIAN),
    dialerIndex: view.getUint32(LEAD_BYTES + 8, LITTLE_ENDIAN),
    bytes,
  };
}

/** What `prover` sends to show that it holds the secret; the prover's role comes first, so it cannot be reflected. */
function proofOf(prover: Role, secret: string | undefined, hellos: { dialer: Hello; listener: Hello }): Uint8Array {
  const mac = createHmac("sha256", secret ?? "");
  mac.update(`tidepool ${prover}\n`).update(hellos.dialer.bytes).update(hellos.listener.bytes);
  return new Uint8Array(mac.digest());
}

/**
 * Introduces this side to a listener and checks that the listener holds the secret. On failure the connection is closed.
 * @throws {HandshakeError} `wrong_secret`, `wrong_version`, `handshake_timeout`, or `handshake_failed` for all else
 */
export function introduce(conn: WorkerConn, self: Introduction, options: HandshakeOptions): Promise<void> {
  const { secret, version = PROTOCOL_VERSION } = options;
  return within(conn, options, async () => {
    const dialer = writeHello({ dialerIndex: 0, ...self }, version);
    await writeFully(conn, dialer.bytes);
    const listener = await readHello(conn, version);
    const isSame = (["epoch", "workerIndex", "dialerIndex"] as const).every((name) => listener[name] === dialer[name]);
    if (listener.role === self.role || !isSame) {
      throw new HandshakeError(
        "handshake_failed",
        "Cannot shake hands: the listener answered for another place in the group",
      );
    }
    await writeFully(conn, proofOf(self.role, secret, { dialer, listener }));
    const verdict = new Uint8Array(1);
    await receive(conn, verdict);
    if (verdict[0] === WRONG_SECRET) {
      throw new HandshakeError("wrong_secret", "Cannot shake hands: the listener holds another secret");
    }
    const proof = new Uint8Array(PROOF_BYTES);
    await receive(conn, proof);
    if (verdict[0] !== ADMITTED || !timingSafeEqual(proof, proofOf(listener.role, secret, { dialer, listener }))) {
      throw new HandshakeError("wrong_secret", "Cannot shake hands: the listener does not hold the secret");
    }
  });
}

/**
 * Checks who dialed, as the side that listens. On failure the connection is closed.
 * @param role this side's role; the dialer must have another one
 * @throws {HandshakeError} `wrong_secret`, `wrong_version`, `handshake_timeout`, or `handshake_failed` for all else
 */
export function admit(conn: WorkerConn, role: Role, options: HandshakeOptions): Promise<Introduction> {
  const { secret, version = PROTOCOL_VERSION } = options;
  return within(conn, options, async () => {
    const dialer = await readHello(conn, version).catch(async (error) => {
      if (error instanceof HandshakeError && error.code === "wrong_version") await tellVersion(conn, role, version);
      throw error;
    });
    if (dialer.role === role) {
      throw new HandshakeError("handshake_failed", `Cannot shake hands: the dialer is a ${role} too`);
    }
    const listener = writeHello({ ...dialer, role }, version);
    await writeFully(conn, listener.bytes);
    const proof = new Uint8Array(PROOF_BYTES);
    await receive(conn, proof);
    if (!timingSafeEqual(proof, proofOf(dialer.role, secret, { dialer, listener }))) {
      await writeFully(conn, Uint8Array.of(WRONG_SECRET));
      throw new HandshakeError("wrong_secret", "Cannot shake hands: the dialer does not hold the secret");
    }
    await writeFully(conn, Uint8Array.of(ADMITTED, ...proofOf(role, secret, { dialer, listener })));
    const { epoch, workerIndex, dialerIndex } = dialer;
    return dialer.role === "peer"
      ? { role: dialer.role, epoch, workerIndex, dialerIndex }
      : { role: dialer.role, epoch, workerIndex };
  });
}

/**
 * Sends a dialer of another version the one that this side speaks. What the dialer has sent is read to its end first,
 * because closing a connection with unread bytes would reset it and destroy the answer on its way.
 */
async function tellVersion(conn: WorkerConn, role: Role, version: number): Promise<void> {
  await writeFully(conn, writeHello({ role, epoch: 0, workerIndex: 0, dialerIndex: 0 }, version).bytes);
  await conn.closeWrite();
  const rest = new Uint8Array(LINGER_BYTES);
  for (let total = 0; total < LINGER_BYTES;) {
    const got = await conn.read(rest);
    if (got === null) return;
    total += got;
  }
}

/** Runs an exchange under one deadline for all of it, so that a peer gains nothing by sending a byte at a time. */
async function within<T>(conn: WorkerConn, options: HandshakeOptions, exchange: () => Promise<T>): Promise<T> {
  const { deadlineMs = DEADLINE_MS, signal } = options;
  let end: HandshakeError | undefined;
  const breakOff = (error: HandshakeError) => {
    if (end === undefined) conn.close();
    end ??= error;
  };
  const abort = () => {
    const given: unknown = signal?.reason;
    const isOurs = given instanceof HandshakeError;
    breakOff(isOurs ? given : new HandshakeError("handshake_failed", "Cannot shake hands: it was broken off"));
  };
  const late = () =>
    breakOff(new HandshakeError("handshake_timeout", `Cannot shake hands: not done within ${deadlineMs} ms`));
  const timer = setTimeout(late, deadlineMs);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    return await exchange();
  } catch (cause) {
    const isOurs = cause instanceof HandshakeError;
    breakOff(
      isOurs ? cause : new HandshakeError("handshake_failed", "Cannot shake hands: the connection broke", { cause }),
    );
    throw end;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

async function receive(conn: WorkerConn, into: Uint8Array): Promise<void> {
  if (await readFully(conn, into)) return;
  throw new HandshakeError("handshake_failed", "Cannot shake hands: the peer closed the connection");
}
