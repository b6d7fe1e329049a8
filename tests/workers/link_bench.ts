/**
 * What it costs a worker's thread to pass a prompt's keys and values on, or its queries and states, without any GPU; by hand:
 * `deno run -A tests/workers/link_bench.ts [lane|link] [keys|states] [messages] [MB]`: through a lane, or on one link with everything else. Two processes send each other as many messages at once, as two workers
 * do whose chunks are under way together; mapped memory of a GPU is memory of the host here, each message one copy out of it and
 * one into it. Times of threads are what the kernel counts, so that other programs do not add to them.
 */

import { Mailbox } from "../../workers/mailbox.ts";
import { PeerExchange } from "../../workers/peer_exchange.ts";
import type { Lane } from "../../workers/lane.ts";
import { openLanes } from "../../workers/open_lanes.ts";
import { PeerLinks } from "../../workers/peer_links.ts";
import type { WorkerConn } from "../../workers/transport.ts";
import { MappedMemory } from "../support/mapped_memory.ts";
import { UnsentKeys } from "../../engine/pass/key_places.ts";

/** Before what is timed. */
const WARM_UP = 16;
const DEADLINE_MS = 600_000;
const ROW_BYTES = 4096;

/** What the kernel has counted for this process. */
interface ThreadTimes {
  readonly mainMs: number;
  readonly othersMs: number;
}

interface Counts {
  reads: number;
  writes: number;
}

interface Figures extends ThreadTimes, Counts {
  readonly wallMs: number;
  readonly copyMs: number;
}

function threadTimes(): ThreadTimes {
  let [mainMs, othersMs] = [0, 0];
  for (const { name } of Deno.readDirSync("/proc/self/task")) {
    try {
      const ms = Number(Deno.readTextFileSync(`/proc/self/task/${name}/schedstat`).split(" ")[0]) / 1e6;
      if (name === String(Deno.pid)) mainMs = ms;
      else othersMs += ms;
    } catch (error) {
      // A thread may end while they are listed.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return { mainMs, othersMs };
}

/** Counts what is read and written by the main thread. */
function counted(conn: Deno.TcpConn, counts: Counts): WorkerConn {
  return {
    remoteAddr: { hostname: "127.0.0.1" },
    read(into) {
      counts.reads++;
      return conn.read(into);
    },
    write(bytes) {
      counts.writes++;
      return conn.write(bytes);
    },
    closeWrite: () => conn.closeWrite(),
    close: () => conn.close(),
    setNoDelay: (noDelay) => conn.setNoDelay(noDelay),
  };
}

/** Which messages of which worker. */
interface Messages {
  readonly index: number;
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
}

/** Queries of own rows and states of the other's, one after the other as in a step; a message is a quarter of a layer's in and out. */
async function passStates(exchange: PeerExchange, memory: MappedMemory, { from, to, bytes }: Messages): Promise<void> {
  const [heads, headDim] = [32, 128];
  const own = bytes / (heads * headDim * 4);
  const ranges = [0, 1].map((owner) => ({ first: owner * own, rows: own, owner }));
  const tensors = (rows: number) => ({
    o: memory.tensor("o", [rows, heads, headDim]),
    lse: memory.tensor("lse", [rows, heads]),
  });
  const q = memory.tensor("q", [2 * own, heads, headDim]);
  const states = {
    own: { ...tensors(2 * own), rows: 2 * own, heads, headDim },
    merged: tensors(own),
    holders: [true, true],
  };
  for (let layer = from; layer < to; layer += 2) {
    const point = { step: 1, batch: 0, layer };
    await exchange.queries(point, ranges, { tensor: q, rowBytes: heads * headDim * 4 });
    await exchange.states(point, ranges, states)?.begin().arrive();
  }
}

/** Sends and takes so many messages, some of its own on their way at a time as in a step. */
async function passKeys(
  exchange: PeerExchange,
  memory: MappedMemory,
  { index, from, to, bytes }: Messages,
): Promise<void> {
  const rows = { rowBytes: ROW_BYTES, rows: bytes / ROW_BYTES };
  const points = Array.from({ length: to - from }, (_, i) => ({ step: 1, batch: 0, layer: from + i }));
  const unsent = new UnsentKeys();
  const send = async () => {
    for (const point of points) await unsent.add(exchange.keys(point, index, { ...rows, tensor: memory.out }));
    await unsent.sent();
  };
  const take = async () => {
    for (const point of points) await exchange.keys(point, 1 - index, { ...rows, tensor: memory.in });
  };
  await Promise.all([send(), take()]);
}

async function lanesBeside(conns: ReadonlyMap<number, WorkerConn>, index: number): Promise<ReadonlyMap<number, Lane>> {
  const hostname = "127.0.0.1";
  const members = [{ hostname, port: 0 }, { hostname, port: 0 }];
  return await openLanes(conns, { epoch: 1, index, members }, {
    address: { hostname, port: 0 },
    secret: undefined,
    identity: undefined,
    trust: undefined,
    signal: new AbortController().signal,
    deadlineMs: DEADLINE_MS,
    onMissing(_, reason) {
      throw new Error(`Cannot measure a lane: ${reason}`);
    },
  });
}

async function measure(index: number, conn: Deno.TcpConn): Promise<Figures> {
  const counts: Counts = { reads: 0, writes: 0 };
  const memory = new MappedMemory(BYTES);
  const mailbox = new Mailbox({ epoch: 1, onStalled: () => {} });
  const peer = 1 - index;
  const conns = new Map([[peer, counted(conn, counts)]]);
  const links = new PeerLinks(conns, {
    mailbox,
    lanes: WAY === "lane" ? await lanesBeside(conns, index) : new Map(),
    onLost: (error) => mailbox.close(error),
  });
  const exchange = new PeerExchange({
    epoch: 1,
    index,
    peers: [peer],
    memory,
    mailbox,
    send: (to, message, onSent) => links.send(to, message, onSent),
    recycle: (from, payload) => links.recycle(from, payload),
    propose: () => {},
  });
  mailbox.begin(1, DEADLINE_MS);
  const pass = KIND === "keys" ? passKeys : passStates;
  await pass(exchange, memory, { index, from: 0, to: WARM_UP, bytes: BYTES });
  memory.copyMs.length = 0;
  const [before, { reads, writes }] = [threadTimes(), { ...counts }];
  const startedAt = performance.now();
  await pass(exchange, memory, { index, from: WARM_UP, to: WARM_UP + MESSAGES, bytes: BYTES });
  const wallMs = performance.now() - startedAt;
  const after = threadTimes();
  await new Promise((resolve) => setTimeout(resolve, 100));
  mailbox.end(1);
  await links.close();
  return {
    wallMs,
    mainMs: after.mainMs - before.mainMs,
    othersMs: after.othersMs - before.othersMs,
    // Others that run on the same cores make most of them longer.
    copyMs: memory.copyMs.toSorted((a, b) => a - b)[Math.floor(memory.copyMs.length / 10)] ?? NaN,
    reads: counts.reads - reads,
    writes: counts.writes - writes,
  };
}

/** Per message, of which each side sends and receives `MESSAGES`. */
function print(figures: readonly Figures[]): void {
  const all = MESSAGES * 2 * figures.length;
  const each = (name: keyof Figures) => figures.reduce((sum, one) => sum + one[name], 0) / all;
  const copyMs = figures.reduce((sum, one) => sum + one.copyMs, 0) / figures.length;
  const gigabytes = 2 * MESSAGES * BYTES / 1e6 / Math.max(...figures.map(({ wallMs }) => wallMs));
  const rows: readonly (readonly [string, number])[] = [
    ["main thread, ms of the CPU", each("mainMs")],
    ["a copy out of or into mapped memory, undisturbed", copyMs],
    ["other threads, ms of the CPU", each("othersMs")],
    ["reads by the main thread", each("reads")],
    ["writes by the main thread", each("writes")],
    ["GB/s each way and side, both together", gigabytes],
  ];
  const text = rows.map(([name, value]) => `   ${name.padEnd(50)} ${value.toFixed(3)}\n`).join("");
  const title = `${WAY}, ${KIND}: a message of ${BYTES} bytes, in or out; ${MESSAGES} of both on each side:\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(title + text));
}

const [WAY = "lane", KIND = "keys", messages = "64", megabytes = "8", port] = Deno.args;
const [MESSAGES, BYTES] = [Number(messages), Number(megabytes) * 2 ** 20];
if (port === undefined) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const peer = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, WAY, KIND, messages, megabytes, String(listener.addr.port)],
    stdout: "piped",
  }).spawn();
  const conn = await listener.accept();
  listener.close();
  const own = await measure(0, conn);
  const { stdout } = await peer.output();
  print([own, JSON.parse(new TextDecoder().decode(stdout))]);
} else {
  const figures = await measure(1, await Deno.connect({ port: Number(port) }));
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(figures)));
}
