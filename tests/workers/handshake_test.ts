/** The handshake against honest peers, strangers and tricksters, over real loopback sockets. */

import assert from "node:assert/strict";
import { HandshakeError } from "../../workers/errors.ts";
import { admit, type HandshakeOptions, introduce } from "../../workers/handshake.ts";
import { tcpPair } from "../support/tcp_pair.ts";

const SECRET = "a secret of some length";
const router = { role: "router", epoch: 3, workerIndex: 1 } as const;

/** Runs both sides; each settles with what it returned or the error it threw. */
async function shake(dialer: HandshakeOptions, listener: HandshakeOptions): Promise<readonly [unknown, unknown]> {
  const [near, far] = await tcpPair();
  const [dialed, admitted] = await Promise.allSettled([
    introduce(near, router, dialer),
    admit(far, "worker", listener),
  ]);
  if (dialed.status === "fulfilled") near.close();
  if (admitted.status === "fulfilled") far.close();
  return [dialed, admitted].map((side) => side.status === "fulfilled" ? side.value : side.reason) as [unknown, unknown];
}

function codeOf(error: unknown): string {
  assert.ok(error instanceof HandshakeError, String(error));
  return error.code;
}

/** What `admit` makes of a peer that writes these bytes and then does what `after` says. */
async function admitStranger(
  bytes: Uint8Array<ArrayBuffer>,
  after: (socket: Deno.TcpConn, admitted: Promise<string>) => Promise<void> | void,
  deadlineMs = 30_000,
): Promise<string> {
  const [near, far] = await tcpPair();
  const admitted = admit(far, "worker", { secret: SECRET, deadlineMs }).then(() => "admitted", codeOf);
  await near.write(bytes);
  await after(near, admitted);
  const outcome = await admitted;
  near.close();
  return outcome;
}

async function readExactly(conn: Deno.Conn, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const got = await conn.read(bytes.subarray(at));
    assert.notEqual(got, null);
    at += got ?? 0;
  }
  return bytes;
}

/** Takes down the bytes an honest router would send to a listener that answers with `reply`. */
async function firstHello(): Promise<Uint8Array<ArrayBuffer>> {
  const [near, far] = await tcpPair();
  const dialed = introduce(near, router, { secret: SECRET }).catch(codeOf);
  const hello = await readExactly(far, 56);
  far.close();
  await dialed;
  return hello;
}

Deno.test("introduce() and admit() agree under one secret, and the listener learns who came", async () => {
  assert.deepEqual(await shake({ secret: SECRET }, { secret: SECRET }), [undefined, router]);
  assert.deepEqual(await shake({ secret: undefined }, { secret: undefined }), [undefined, router]);
});

Deno.test("introduce() and admit() leave what follows on the connection untouched", async () => {
  const [near, far] = await tcpPair();
  const options = { secret: SECRET };
  await Promise.all([
    introduce(near, router, options).then(() => near.write(Uint8Array.of(42))),
    admit(far, "worker", options),
  ]);
  assert.deepEqual(await readExactly(far, 1), Uint8Array.of(42));
  near.close();
  far.close();
});

Deno.test("introduce() and admit() tell a wrong secret from a wrong version", async () => {
  const secrets = await shake({ secret: SECRET }, { secret: "another secret entirely" });
  assert.deepEqual(secrets.map(codeOf), ["wrong_secret", "wrong_secret"]);
  const missing = await shake({ secret: undefined }, { secret: SECRET });
  assert.deepEqual(missing.map(codeOf), ["wrong_secret", "wrong_secret"]);
  const versions = await shake({ secret: SECRET, version: 7 }, { secret: SECRET, version: 8 });
  assert.deepEqual(versions.map(codeOf), ["wrong_version", "wrong_version"]);
  assert.match(String(versions[0]), /the peer speaks protocol version 8, this side 7/);
});

Deno.test("admit() turns garbage away at once", async () => {
  assert.equal(await admitStranger(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), () => {}), "handshake_failed");
  assert.equal(await admitStranger(crypto.getRandomValues(new Uint8Array(900)), () => {}), "handshake_failed");
});

Deno.test("admit() turns away a peer that hangs up halfway", async () => {
  assert.equal(await admitStranger((await firstHello()).slice(0, 30), (s) => s.closeWrite()), "handshake_failed");
});

Deno.test("admit() gives a slow peer one deadline for everything", async () => {
  const hello = await firstHello();
  let [at, isOver] = [1, false];
  const outcome = await admitStranger(hello.slice(0, at), async (socket, admitted) => {
    admitted.then(() => isOver = true);
    while (!isOver && at < hello.length) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (await socket.write(hello.subarray(at, at + 1)).catch(() => 0) === 0) return;
      at++;
    }
  }, 150);
  assert.equal(outcome, "handshake_timeout");
  assert.ok(at < hello.length, "the deadline is not begun again with each byte");
});

Deno.test("admit() turns away a recorded handshake that is played again", async () => {
  const [near, far] = await tcpPair();
  const recorded: Uint8Array<ArrayBuffer>[] = [];
  const write = near.write.bind(near);
  near.write = (bytes) => (recorded.push(Uint8Array.from(bytes)), write(bytes));
  await Promise.all([introduce(near, router, { secret: SECRET }), admit(far, "worker", { secret: SECRET })]);
  near.close();
  far.close();

  const [hello, proof] = recorded;
  assert.ok(hello !== undefined && proof !== undefined);
  const outcome = await admitStranger(hello, async (socket) => {
    await readExactly(socket, 56);
    await socket.write(proof);
    assert.deepEqual(await readExactly(socket, 1), Uint8Array.of(2));
  });
  assert.equal(outcome, "wrong_secret");
});

Deno.test("introduce() is not fooled by its own bytes sent back", async () => {
  const [near, far] = await tcpPair();
  const dialed = introduce(near, router, { secret: SECRET }).then(() => "admitted", codeOf);
  await far.write(await readExactly(far, 56));
  assert.equal(await dialed, "handshake_failed");
  far.close();
});

Deno.test("introduce() is not fooled by its own proof sent back under the listener's role", async () => {
  const [near, far] = await tcpPair();
  const dialed = introduce(near, router, { secret: SECRET }).then(() => "admitted", codeOf);
  const hello = await readExactly(far, 56);
  hello[10] = 1;
  await far.write(hello);
  const proof = await readExactly(far, 32);
  await far.write(Uint8Array.of(1, ...proof));
  assert.equal(await dialed, "wrong_secret");
  far.close();
});

Deno.test("introduce() refuses a listener that answers for another epoch", async () => {
  const [near, far] = await tcpPair();
  const dialed = introduce(near, router, { secret: SECRET }).then(() => "admitted", codeOf);
  const hello = await readExactly(far, 56);
  hello[10] = 1;
  hello[12] = 99;
  await far.write(hello);
  assert.equal(await dialed, "handshake_failed");
  far.close();
});

Deno.test("introduce() and admit() tell peers by both their indices", async () => {
  const peer = { role: "peer", epoch: 3, workerIndex: 1, dialerIndex: 2 } as const;
  const [near, far] = await tcpPair();
  const options = { secret: SECRET };
  const [, admitted] = await Promise.all([introduce(near, peer, options), admit(far, "worker", options)]);
  assert.deepEqual(admitted, peer);
  near.close();
  far.close();
});
