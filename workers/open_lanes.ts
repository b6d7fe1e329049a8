/**
 * Brings the lanes of a group about, one beside each link. A port that no one can reach must not keep a group from forming, so peers
 * agree over the link whether both have the lane: if not, everything takes the link. Knows links and lanes; knows nothing of
 * messages.
 */

import { messageOf } from "../kernels/errors.ts";
import { PeerError } from "./errors.ts";
import { Lane } from "./lane.ts";
import type { LaneOrigin } from "./lane_messages.ts";
import type { Address, Form } from "./protocol.ts";
import { readFully, type TlsIdentity, type TlsTrust, type WorkerConn, writeFully } from "./transport.ts";

const PORT_BYTES = 2;
const MAX_PORT = 65_535;
const LITTLE_ENDIAN = true;
const HAS_LANE = 1;

/** What they follow from of a worker's place in its group. */
type LaneForm = Pick<Form, "epoch" | "index" | "members">;

/** How to open them. */
export interface OpenLanesOptions {
  /** Where this worker listens itself: for a peer's lane so many ports further on as its index says, so that firewalls can let it in. */
  readonly address: Address;
  readonly secret: string | undefined;
  /** Undefined: clear text. */
  readonly identity: TlsIdentity | undefined;
  readonly trust: TlsTrust | undefined;
  /** Gives up; its reason is a `PeerError`. */
  readonly signal: AbortSignal;
  /** Called for each peer that there is no lane to. */
  readonly onMissing: (peer: number, reason: string) => void;
  /** For each of both sides to start a thread and to meet the other. */
  readonly deadlineMs: number;
}

/**
 * Opens a lane to each peer that it can be opened to.
 * @param conns by peer; nothing else may be read or written meanwhile
 * @returns by peer; the caller owns them
 * @throws {PeerError} when a peer is gone, or the signal's reason; no lane is left then
 */
export async function openLanes(
  conns: ReadonlyMap<number, WorkerConn>,
  form: LaneForm,
  options: OpenLanesOptions,
): Promise<ReadonlyMap<number, Lane>> {
  const lanes = new Map<number, Lane>();
  const over = new AbortController();
  const gaveUp = Promise.withResolvers<never>();
  const giveUp = () => gaveUp.reject(options.signal.reason);
  options.signal.addEventListener("abort", giveUp, { once: true });
  if (options.signal.aborted) giveUp();
  try {
    const opening = conns.entries().map(([peer, conn]) =>
      openLane(conn, { ...options, form, peer, lanes, over: over.signal })
    );
    await Promise.race([Promise.all(opening), gaveUp.promise]);
    return lanes;
  } catch (error) {
    over.abort(error);
    for (const lane of lanes.values()) lane.close();
    lanes.clear();
    throw error;
  } finally {
    options.signal.removeEventListener("abort", giveUp);
  }
}

/** Of one lane: `lanes` takes it as soon as there is something to close. */
interface LaneOpening extends OpenLanesOptions {
  readonly form: LaneForm;
  readonly peer: number;
  readonly lanes: Map<number, Lane>;
  /** From its abort on, no lane is to be begun. */
  readonly over: AbortSignal;
}

async function openLane(conn: WorkerConn, opening: LaneOpening): Promise<void> {
  const { form: { index }, peer, lanes, onMissing } = opening;
  try {
    const lane = index < peer ? await listen(conn, opening) : await dialLane(conn, opening);
    const theirs = receive(conn, 1).then(([verdict]) => verdict === HAS_LANE);
    // A side that waits in vain hears of it from the one that failed.
    const missing = await Promise.race([outcomeOf(lane), theirs.then((has) => has ? outcomeOf(lane) : NONE_THERE)]);
    await writeFully(conn, Uint8Array.of(missing === undefined ? HAS_LANE : 0));
    if (await theirs && missing === undefined) return;
    onMissing(peer, missing ?? NONE_THERE);
  } catch (cause) {
    throw new PeerError("peer_lost", `Cannot reach worker ${peer}: ${messageOf(cause)}`, { peer, cause });
  }
  lanes.get(peer)?.close();
  lanes.delete(peer);
}

const NONE_THERE = "the other side has none";

/** @returns the lane, or why there is none on this side */
async function listen(conn: WorkerConn, opening: LaneOpening): Promise<Lane | string> {
  const { address: { hostname, port: own }, identity, peer } = opening;
  const lane = take(opening, { kind: "listen", hostname, port: Math.min(own + peer, MAX_PORT), identity });
  const port = await lane.listening.catch(messageOf);
  const bytes = new Uint8Array(PORT_BYTES);
  new DataView(bytes.buffer).setUint16(0, typeof port === "number" ? port : 0, LITTLE_ENDIAN);
  await writeFully(conn, bytes);
  return typeof port === "number" ? lane : port;
}

/** @returns the lane, or why there is none on this side */
async function dialLane(conn: WorkerConn, opening: LaneOpening): Promise<Lane | string> {
  const { form, peer, trust } = opening;
  const port = new DataView((await receive(conn, PORT_BYTES)).buffer).getUint16(0, LITTLE_ENDIAN);
  if (port === 0) return "the other side cannot listen";
  return take(opening, { kind: "dial", hostname: form.members[peer]?.hostname ?? "", port, trust });
}

/** @returns undefined once a lane is open; else why it is not */
async function outcomeOf(lane: Lane | string): Promise<string | undefined> {
  if (typeof lane === "string") return lane;
  return await lane.open.then(() => undefined, messageOf);
}

type Way<Kind> = Omit<Extract<LaneOrigin, { readonly kind: Kind }>, "place" | "secret" | "deadlineMs">;

function take(
  { form: { epoch, index }, peer, secret, lanes, over, deadlineMs }: LaneOpening,
  way: Way<"listen"> | Way<"dial">,
): Lane {
  over.throwIfAborted();
  const place = { epoch, dialer: Math.max(index, peer), listener: Math.min(index, peer) };
  const lane = new Lane({ ...way, place, secret, deadlineMs });
  lanes.set(peer, lane);
  return lane;
}

async function receive(conn: WorkerConn, count: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(count);
  if (await readFully(conn, bytes)) return bytes;
  throw new Error("it closed the connection");
}
