/** Lanes between two workers in this process, over real sockets: what takes them, how they end, and groups that cannot have any. */

import assert from "node:assert/strict";
import type { Exchange } from "../../engine/exchange.ts";
import { Acceptor } from "../../workers/acceptor.ts";
import { GroupMembership } from "../../workers/group_membership.ts";
import type { Lane } from "../../workers/lane.ts";
import { MIN_LANE_BYTES } from "../../workers/lane_messages.ts";
import { Mailbox } from "../../workers/mailbox.ts";
import { openLanes, type OpenLanesOptions } from "../../workers/open_lanes.ts";
import { PeerLinks } from "../../workers/peer_links.ts";
import type { PeerMessage } from "../../workers/peer_protocol.ts";
import { FAKE_INFO } from "../support/fake_engine.ts";
import { HostMemory } from "../support/host_memory.ts";
import { tcpPair } from "../support/tcp_pair.ts";
import { until } from "../support/until.ts";

const HOST = "127.0.0.1";
/** Workers that have no port of their own listen for lanes at any. */
const HERE = { hostname: HOST, port: 0 };
const SECRET = "a secret of some length";
const read = (name: string) => Deno.readTextFile(new URL(`../fixtures/tls/${name}.pem`, import.meta.url));
const TLS = { cert: await read("cert"), key: await read("key") };

/** What both ends of a lane opened with, and what became of it. */
interface Opened {
  readonly conns: readonly [Deno.TcpConn, Deno.TcpConn];
  readonly lanes: readonly (Lane | undefined)[];
  /** Why a side has none. */
  readonly reasons: readonly (string | undefined)[];
}

/** Opens a lane between workers 0, which listens, and 1; `change` is what is unlike at either. */
async function opened(change: readonly Partial<OpenLanesOptions & { dials: string }>[] = [{}, {}]): Promise<Opened> {
  const conns = await tcpPair();
  const reasons: (string | undefined)[] = [undefined, undefined];
  const sides = await Promise.all(conns.map((conn, index) => {
    const { dials = HOST, ...unlike } = change[index] ?? {};
    const members = [{ hostname: dials, port: 1 }, { hostname: HOST, port: 2 }];
    return openLanes(new Map([[1 - index, conn]]), { epoch: 1, index, members }, {
      address: HERE,
      secret: SECRET,
      // Threads take long to start on a busy machine.
      deadlineMs: 30_000,
      identity: undefined,
      trust: undefined,
      signal: new AbortController().signal,
      onMissing: (_, reason) => reasons[index] = reason,
      ...unlike,
    });
  }));
  return { conns, lanes: sides.map((lanes, index) => lanes.get(1 - index)), reasons };
}

function closeAll({ conns, lanes }: Opened): void {
  for (const lane of lanes) lane?.close();
  for (const conn of conns) conn.close();
}

/** Keys of a layer in memory that threads share, from a size on that takes a lane. */
function keys(layer: number, bytes = MIN_LANE_BYTES): PeerMessage {
  const rows = new Float32Array(new SharedArrayBuffer(bytes)).fill(layer);
  return { kind: "keys", epoch: 1, step: 1, batch: 0, layer, rows: [rows] };
}

Deno.test("PeerLinks send what is large through lanes, both ways at once, and lose a peer once when its lane ends", async () => {
  const { conns, lanes } = await opened();
  const lost: string[] = [];
  const mailboxes = conns.map(() => new Mailbox({ epoch: 1, onStalled: () => {} }));
  const links = conns.map((conn, index) => {
    const [mailbox, lane] = [mailboxes[index] ?? assert.fail(), lanes[index] ?? assert.fail("no lane")];
    const onLost = ({ code, message }: Error & { code: string }) => lost.push(`${index} ${code} ${message}`);
    return new PeerLinks(new Map([[1 - index, conn]]), { mailbox, lanes: new Map([[1 - index, lane]]), onLost });
  });
  for (const mailbox of mailboxes) mailbox.begin(1, 30_000);
  const sent: string[] = [];
  const received: { readonly layer: number; readonly rows: Float32Array }[] = [];
  for (let layer = 0; layer < 6; layer++) {
    const point = { step: 1, batch: 0, layer };
    for (const [index, own] of links.entries()) {
      own.send(1 - index, keys(layer, 4 * MIN_LANE_BYTES), () => sent.push(`${index} ${layer}`));
    }
    for (const [index, mailbox] of mailboxes.entries()) {
      const { rows: [rows = assert.fail()] } = await mailbox.take(1 - index, "keys", point);
      assert.ok(rows.buffer instanceof SharedArrayBuffer && rows.every((value) => value === layer));
      received.push({ layer, rows });
      links[index]?.recycle(1 - index, rows.buffer);
    }
  }
  // A peer may have read a message before the thread that wrote it has said so.
  await until(() => sent.length >= 12);
  for (const index of [0, 1]) {
    assert.deepEqual(
      sent.filter((each) => each.startsWith(`${index} `)),
      [0, 1, 2, 3, 4, 5].map((layer) => `${index} ${layer}`),
    );
  }
  assert.ok(received.some(({ layer, rows }) => rows[0] !== layer), "memory that was taken back is used again");
  // What is small, or not shared, takes the link.
  links[0]?.send(1, { kind: "tokens", epoch: 1, step: 1, batch: 0, layer: 0, tokens: Uint32Array.of(7) });
  assert.deepEqual([
    ...(await mailboxes[1]?.take(0, "tokens", { step: 1, batch: 0, layer: 0 }) ?? assert.fail()).tokens,
  ], [7]);
  lanes[0]?.close();
  await until(() => lost.length > 0);
  assert.throws(() => links[1]?.send(0, keys(9)), { code: "peer_lost" });
  await Promise.all(links.map((each) => each.close()));
  for (const mailbox of mailboxes) mailbox.end(1);
  assert.deepEqual(lost, [
    "1 peer_lost Cannot reach worker 0: Cannot use link: the connection broke: the peer closed it",
  ]);
});

Deno.test("openLanes() opens lanes in TLS, checks certificates, and goes without lanes where peers cannot meet", async () => {
  const cases: readonly (readonly [Parameters<typeof opened>[0], readonly [RegExp, RegExp] | undefined])[] = [
    [[{ identity: TLS }, { trust: { ca: TLS.cert } }], undefined],
    [[{ identity: TLS }, {}], [/other side has none/, /broke|peer/]],
    [[{}, { secret: "another secret" }], [/other side has none/, /holds another secret|connection broke/]],
    // A port at which no one listens.
    [[{}, { dials: "127.0.0.2" }], [/other side has none/, /refused/]],
    // A side that cannot listen.
    [[{ address: { ...HERE, hostname: "192.0.2.1" } }, {}], [/Cannot use link/, /cannot listen/]],
  ];
  for (const [change, reasons] of cases) {
    const all = await opened(change);
    for (const [index, lane] of all.lanes.entries()) {
      assert.equal(lane === undefined, reasons !== undefined);
      if (reasons !== undefined) assert.match(all.reasons[index] ?? "", reasons[index] ?? assert.fail());
    }
    // What the peers said about it is all read: the links are as before.
    await all.conns[0].write(Uint8Array.of(5));
    const byte = new Uint8Array(1);
    await all.conns[1].read(byte);
    assert.equal(byte[0], 5);
    closeAll(all);
  }
});

Deno.test("openLanes() ends with the signal's reason, and with the loss of a peer", async () => {
  const [near, far] = await tcpPair();
  const gaveUp = new AbortController();
  const form = { epoch: 1, index: 1, members: [{ hostname: HOST, port: 1 }, { hostname: HOST, port: 2 }] };
  const options = {
    address: HERE,
    deadlineMs: 30_000,
    secret: SECRET,
    identity: undefined,
    trust: undefined,
    onMissing: () => {},
  };
  const opening = openLanes(new Map([[0, near]]), form, { ...options, signal: gaveUp.signal });
  gaveUp.abort(new Error("too late"));
  await assert.rejects(opening, /too late/);
  near.close();
  far.close();
  const [other, gone] = await tcpPair();
  const lost = openLanes(new Map([[0, other]]), form, { ...options, signal: new AbortController().signal });
  gone.close();
  await assert.rejects(lost, {
    code: "peer_lost",
    peer: 0,
    message: /Cannot reach worker 0: it closed the connection/,
  });
  other.close();
});

Deno.test("GroupMembership forms a group of a large model with lanes, which keys, queries and states take", async () => {
  const places = [0, 1].map(placeInGroup);
  const members = places.map(({ address }) => address);
  const form = { epoch: 1, members, weights: [8, 8], matrix: false, alike: true, replicaPages: 8, deadlineMs: 30_000 };
  try {
    const exchanges = await Promise.all(
      places.map(({ take }, index) => take({ ...form, index, sparseExchange: "auto" })),
    );
    for (const { membership } of places) membership.begin(1, 30_000);
    const count = MIN_LANE_BYTES / 4;
    await Promise.all(places.map(async ({ memory }, index) => {
      const tensor = memory.tensor("keys", [count], new Float32Array(count).fill(index === 0 ? 7 : 0));
      await exchanges[index]?.keys({ step: 1, batch: 0, layer: 0 }, 0, { tensor, rowBytes: 4096, rows: count / 1024 });
      assert.ok(memory.values(tensor).every((value) => value === 7));
    }));
    for (const layer of [1, 2, 3]) {
      await Promise.all(
        places.map(({ memory }, index) => shareRows(exchanges[index] ?? assert.fail(), { memory, index, layer })),
      );
    }
    assert.deepEqual(places.flatMap(({ log }) => log), []);
  } finally {
    await Promise.all(places.map(({ membership }) => membership.close()));
    for (const { acceptor } of places) await acceptor.close();
  }
});

/** One worker's part of a layer whose rows are computed by the owners of their pages, in messages that take a lane. */
async function shareRows(
  exchange: Exchange,
  { memory, index, layer }: { readonly memory: HostMemory; readonly index: number; readonly layer: number },
): Promise<void> {
  const [heads, headDim] = [32, 128];
  const rows = MIN_LANE_BYTES / (heads * headDim * 4);
  const ranges = [0, 1].map((owner) => ({ first: owner * rows, rows, owner }));
  const point = { step: 1, batch: 1, layer };
  const half = rows * heads * headDim;
  const filled = (of: number) => new Float32Array(2 * half).fill(of);
  const q = memory.tensor("q", [2 * rows, heads, headDim], filled(10 * layer + index));
  await exchange.queries(point, ranges, { tensor: q, rowBytes: heads * headDim * 4 });
  const queries = memory.values(q);
  assert.ok(queries.every((value, i) => value === 10 * layer + (i < half ? 0 : 1)));
  const merged = {
    o: memory.tensor("merged o", [rows, heads, headDim]),
    lse: memory.tensor("merged lse", [rows, heads]),
  };
  const o = memory.tensor("o", [2 * rows, heads, headDim], filled(layer + index));
  const own = { o, lse: memory.tensor("lse", [2 * rows, heads]), rows: 2 * rows, heads, headDim };
  await exchange.states(point, ranges, { own, merged, holders: [true, true] })?.begin().arrive();
  assert.ok(memory.values(merged.o).every((value) => value === layer + 0.5));
  assert.ok(memory.values(merged.lse).every((value) => Math.abs(value - Math.LN2) < 1e-6));
}

/** A worker as far as it takes part in exchanges. */
function placeInGroup(index: number) {
  const listener = Deno.listen({ hostname: HOST, port: 0 });
  const acceptor = new Acceptor(listener, { secret: SECRET, onRefused: () => {}, onAcceptFailed: () => {} });
  const log: string[] = [];
  const tell = () => {};
  const membership = new GroupMembership({ acceptor, secret: SECRET, tell, log: (line) => log.push(line) });
  const memory = new HostMemory();
  const take = async (form: Parameters<typeof membership.take>[0]): Promise<Exchange> => {
    let joined: Exchange | undefined;
    const engine = {
      info: FAKE_INFO,
      join: ({ exchange }: { readonly exchange: Exchange }) => void (joined = exchange),
      run: () => Promise.reject(new Error("it runs no steps")),
      close: () => Promise.resolve(),
    };
    await membership.take(form, { engine, memory, keyBytes: 4096 });
    return joined ?? assert.fail(`worker ${index} has not joined: ${log}`);
  };
  return { address: listener.addr, acceptor, membership, memory, log, take };
}
