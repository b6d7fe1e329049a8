/** The acceptor of a worker against routers, peers that come early or never, and strangers. */

import assert from "node:assert/strict";
import { Acceptor } from "../../workers/acceptor.ts";
import { introduce, type Introduction } from "../../workers/handshake.ts";
import { until } from "../support/until.ts";

const SECRET = "a secret of some length";
const ROUTER = { role: "router", epoch: 3, workerIndex: 1 } as const;
const NEVER = new AbortController().signal;

interface Stage {
  readonly acceptor: Acceptor;
  readonly refused: readonly string[];
  /** A connection that nothing was sent on yet; it is closed after the test. */
  knock(): Promise<Deno.TcpConn>;
  introduce(self: Introduction): Promise<Deno.TcpConn>;
}

async function atAcceptor(play: (stage: Stage) => Promise<void>): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const refused: string[] = [];
  const conns: Deno.TcpConn[] = [];
  const acceptor = new Acceptor(listener, {
    secret: SECRET,
    onRefused: ({ message }) => refused.push(message),
    onAcceptFailed: (error) => assert.fail(String(error)),
  });
  const knock = async () => {
    const conn = await Deno.connect({ port: listener.addr.port });
    conns.push(conn);
    return conn;
  };
  try {
    await play({
      acceptor,
      refused,
      knock,
      async introduce(self) {
        const conn = await knock();
        await introduce(conn, self, { secret: SECRET });
        return conn;
      },
    });
  } finally {
    await acceptor.close();
    for (const conn of conns) conn.close();
  }
}

function isOver(conn: Deno.TcpConn): Promise<boolean> {
  return conn.read(new Uint8Array(1)).then((got) => got === null, () => true);
}

function peer(epoch: number, dialerIndex: number): Introduction {
  return { role: "peer", epoch, workerIndex: 0, dialerIndex };
}

Deno.test("Acceptor.router() lets the router in past 60 silent strangers of its own address, and turns the next router away", async () => {
  await atAcceptor(async ({ acceptor, refused, knock, introduce }) => {
    const silent = await Promise.all(Array.from({ length: 60 }, knock));
    await introduce(ROUTER);
    const { conn, peer } = await acceptor.router(NEVER);
    assert.deepEqual(peer, ROUTER);
    // All but the eight of one address lose their places once their grace is over.
    await until(() => refused.length >= 52);
    const second = await introduce(ROUTER);
    assert.ok(await isOver(second));
    assert.ok(refused.includes("Cannot shake hands: another router is served"), `${refused}`);
    await acceptor.close();
    for (const stranger of silent) assert.ok(await isOver(stranger));
    conn.close();
  });
});

Deno.test("Acceptor goes on accepting after it ran out of file descriptors", async () => {
  const failures: string[] = [];
  let calls = 0;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accept = listener.accept.bind(listener);
  listener.accept = () => {
    if (calls++ >= 3) return accept();
    return Promise.reject(Object.assign(new Error("Too many open files (os error 24)"), { code: "EMFILE" }));
  };
  const acceptor = new Acceptor(listener, {
    secret: SECRET,
    onRefused: (error) => assert.fail(String(error)),
    onAcceptFailed: ({ message }) => void failures.push(message),
  });
  using conn = await Deno.connect({ port: listener.addr.port });
  try {
    await introduce(conn, ROUTER, { secret: SECRET });
    (await acceptor.router(NEVER)).conn.close();
    assert.equal(failures.length, 3);
  } finally {
    await acceptor.close();
  }
});

Deno.test("Acceptor.router() throws the signal's reason", async () => {
  await atAcceptor(async ({ acceptor }) => {
    const stop = new AbortController();
    const router = acceptor.router(stop.signal);
    stop.abort(new Error("enough"));
    await assert.rejects(router, /enough/);
  });
});

Deno.test("Acceptor.peer() hands out peers that came before and those that come after, each to its place", async () => {
  await atAcceptor(async ({ acceptor, introduce }) => {
    const early = await introduce(peer(2, 1));
    const late = acceptor.peer({ epoch: 2, dialer: 2, listener: 0 }, NEVER);
    const present = await acceptor.peer({ epoch: 2, dialer: 1, listener: 0 }, NEVER);
    await introduce(peer(2, 2));
    await early.write(Uint8Array.of(7));
    const byte = new Uint8Array(1);
    await present.read(byte);
    assert.deepEqual(byte, Uint8Array.of(7));
    present.close();
    (await late).close();
  });
});

Deno.test("Acceptor.peer() waits for the right one only, and hangs up on peers of epochs that are over", async () => {
  await atAcceptor(async ({ acceptor, introduce }) => {
    const stop = new AbortController();
    const expected = assert.rejects(acceptor.peer({ epoch: 5, dialer: 1, listener: 0 }, stop.signal), /enough/);
    const others = await Promise.all([peer(4, 1), peer(5, 2), { ...peer(5, 1), workerIndex: 9 }].map(introduce));
    stop.abort(new Error("enough"));
    await expected;
    const next = acceptor.peer({ epoch: 6, dialer: 1, listener: 0 }, NEVER);
    for (const other of others) assert.ok(await isOver(other));
    await introduce(peer(6, 1));
    (await next).close();
  });
});

Deno.test("Acceptor holds only so many peers that are not wanted", async () => {
  await atAcceptor(async ({ refused, introduce }) => {
    const conns: Deno.TcpConn[] = [];
    for (let index = 1; index <= 17; index++) conns.push(await introduce(peer(2, index)));
    const [first] = conns;
    assert.ok(first !== undefined && await isOver(first));
    assert.equal(refused.length, 1);
  });
});
