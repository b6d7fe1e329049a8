/** Connections in TLS between router and workers: as quick as clear ones, believed or not, and told from clear text. */

import assert from "node:assert/strict";
import { admit, introduce } from "../../workers/handshake.ts";
import { dial, listenFor, type TlsTrust, type WorkerConn, type WorkerListener } from "../../workers/transport.ts";

const read = (name: string) => Deno.readTextFile(new URL(`../fixtures/tls/${name}.pem`, import.meta.url));
const IDENTITY = { cert: await read("cert"), key: await read("key") };
const TRUST: TlsTrust = { ca: IDENTITY.cert };
const LOCAL = { hostname: "127.0.0.1", port: 0 };
const never = new AbortController().signal;

async function withListener(
  identity: typeof IDENTITY | undefined,
  play: (listener: WorkerListener) => Promise<void>,
): Promise<void> {
  const listener = await listenFor(LOCAL, identity);
  try {
    await play(listener);
  } finally {
    listener.close();
  }
}

async function pair(listener: WorkerListener, trust: TlsTrust | undefined): Promise<readonly [WorkerConn, WorkerConn]> {
  return await Promise.all([dial(listener.addr, { trust, signal: never }), listener.accept()]);
}

async function readFully(conn: WorkerConn, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  for (let filled = 0; filled < count;) {
    filled += await conn.read(bytes.subarray(filled)) ?? assert.fail("it has ended");
  }
  return bytes;
}

async function writeFully(conn: WorkerConn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await conn.write(bytes.subarray(written));
}

Deno.test("a TLS connection carries bytes both ways, in pieces of any size, and both ends see its end", () =>
  withListener(IDENTITY, async (listener) => {
    const [near, far] = await pair(listener, TRUST);
    const sent = crypto.getRandomValues(new Uint8Array(60_000));
    const [got] = await Promise.all([readFully(far, sent.length), writeFully(near, sent)]);
    assert.deepEqual(got, sent);
    const [back] = await Promise.all([readFully(near, sent.length), writeFully(far, sent)]);
    assert.deepEqual(back, sent);
    await near.closeWrite();
    assert.equal(await far.read(new Uint8Array(1)), null);
    far.close();
    near.close();
    await assert.rejects(far.read(new Uint8Array(1)), Deno.errors.BadResource);
  }));

Deno.test("small writes in TLS do not wait for each other", () =>
  withListener(IDENTITY, async (listener) => {
    const [near, far] = await pair(listener, TRUST);
    const head = new Uint8Array(8);
    const body = new Uint8Array(2000);
    let quickestMs = Infinity;
    for (let round = 0; round < 20; round++) {
      const startedMs = performance.now();
      for (const [from, to] of [[near, far], [far, near]] as const) {
        await writeFully(from, head);
        await writeFully(from, body);
        await readFully(to, head.length + body.length);
      }
      quickestMs = Math.min(quickestMs, performance.now() - startedMs);
    }
    // With Nagle's algorithm the quickest takes 87 ms; on a busy machine some take as long without it, but not all.
    assert.ok(quickestMs < 60, `${quickestMs} ms for one there and back`);
    near.close();
    far.close();
  }));

Deno.test("a certificate that is not believed, or bears another name, is refused by the side that dials", () =>
  withListener(IDENTITY, async (listener) => {
    const { hostname, port } = listener.addr;
    const other = { ca: IDENTITY.cert, name: "other.example" };
    await assert.rejects(
      dial({ hostname, port }, { trust: other, signal: never }),
      /NotValidForName|not valid for name/i,
    );
    const [near, far] = await pair(listener, { ca: IDENTITY.cert, name: "localhost" });
    near.close();
    far.close();
  }));

Deno.test("router and worker prove their secret in TLS as in clear text", () =>
  withListener(IDENTITY, async (listener) => {
    const [near, far] = await pair(listener, TRUST);
    const secret = "a secret of many characters";
    const [, peer] = await Promise.all([
      introduce(near, { role: "router", epoch: 3, workerIndex: 1 }, { secret }),
      admit(far, "worker", { secret }),
    ]);
    assert.deepEqual(peer, { role: "router", epoch: 3, workerIndex: 1 });
    near.close();
    far.close();
  }));

Deno.test("a worker in clear text says that the one who dials speaks TLS", () =>
  withListener(undefined, async (listener) => {
    const dialing = assert.rejects(dial(listener.addr, { trust: TRUST, signal: never }));
    const far = await listener.accept();
    await assert.rejects(admit(far, "worker", { secret: undefined }), {
      message: /the peer speaks TLS, and this side does not/,
    });
    await dialing;
  }));

Deno.test("a router in clear text gets no further than the handshake with a worker in TLS", () =>
  withListener(IDENTITY, async (listener) => {
    const near = await dial(listener.addr, { trust: undefined, signal: never });
    const introduced = introduce(near, { role: "router", epoch: 1, workerIndex: 0 }, { secret: undefined });
    await assert.rejects(introduced, { code: "handshake_failed" });
  }));
