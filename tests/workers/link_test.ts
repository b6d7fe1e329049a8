/** Links over real loopback sockets: order, backpressure, deadlines, and exactly one end with its reason. */

import assert from "node:assert/strict";
import { ProtocolError } from "../../workers/errors.ts";
import { Link, type LinkOptions } from "../../workers/link.ts";
import { tcpPair } from "../support/tcp_pair.ts";
import { encodeFrame } from "../support/encode_frame.ts";

interface Note {
  readonly n: number;
  readonly data?: Uint32Array;
}

const options: LinkOptions<Note> = {
  parse(value) {
    if (typeof value === "object" && value !== null && "n" in value) return value as Note;
    throw new ProtocolError("Cannot read note: it has no n");
  },
};

async function withLinks(
  use: (near: Link<Note, Note>, far: Link<Note, Note>) => Promise<void>,
  change: Partial<LinkOptions<Note>> = {},
): Promise<void> {
  const [a, b] = await tcpPair();
  const near = new Link<Note, Note>(a, { ...options, ...change });
  const far = new Link<Note, Note>(b, { ...options, ...change });
  try {
    await use(near, far);
  } finally {
    await Promise.all([near.close(), far.close()]);
  }
}

/** One end is a link, the other a bare socket. */
async function withSocket(use: (link: Link<Note, Note>, socket: Deno.TcpConn) => Promise<void>): Promise<void> {
  const [a, socket] = await tcpPair();
  const link = new Link<Note, Note>(a, options);
  try {
    await use(link, socket);
  } finally {
    await link.close();
    socket.close();
  }
}

Deno.test("Link says when a message has left, and reads the next one into memory that is taken back", async () => {
  await withLinks(async (near, far) => {
    const sent: number[] = [];
    const sizes = [100_000, 100_000, 90_000, 100_000];
    const payloads: (ArrayBufferLike | undefined)[] = [];
    for (const [n, size] of sizes.entries()) {
      near.send({ n, data: new Uint32Array(size).fill(n) }, () => sent.push(n));
      const { data } = await far.receive(5000);
      assert.deepEqual(data, new Uint32Array(size).fill(n));
      payloads.push(data?.buffer);
      if (n > 0 && data?.buffer instanceof ArrayBuffer) far.recycle(data.buffer);
    }
    await near.flush(15_000);
    assert.deepEqual(sent, [0, 1, 2, 3]);
    assert.equal(payloads[3], payloads[1], "of the same size, and taken back");
    assert.equal(new Set(payloads).size, 3);
  });
});

Deno.test("Link delivers messages in order, both ways at once, however large", async () => {
  await withLinks(async (near, far) => {
    const data = new Uint32Array(300_000);
    for (let n = 1; n <= 8; n++) {
      near.send({ n, data });
      far.send({ n: -n, data });
    }
    for (let n = 1; n <= 8; n++) {
      assert.deepEqual(await far.receive(15_000), { n, data });
      assert.equal((await near.receive(15_000)).n, -n);
    }
  });
});

Deno.test("Link keeps long headers apart, and does not copy long tensors", async () => {
  await withLinks(async (near, far) => {
    const words = (n: number) => Array.from({ length: 20_000 }, (_, i) => n + i);
    const data = new Uint32Array(50_000).fill(7);
    near.send({ n: 1, words: words(100), data } as Note);
    near.send({ n: 2, words: words(200) } as Note);
    data[49_999] = 8;
    assert.deepEqual(await far.receive(15_000), { n: 1, words: words(100), data });
    assert.deepEqual(await far.receive(15_000), { n: 2, words: words(200) });
  });
});

Deno.test("Link.receive() times out, and the link works on", async () => {
  await withLinks(async (near, far) => {
    await assert.rejects(far.receive(10), { code: "link_timeout", message: /within 10 ms/ });
    near.send({ n: 1 });
    assert.equal((await far.receive(15_000)).n, 1);
  });
});

Deno.test("Link hands out what arrived before the peer closed, then the end", async () => {
  await withLinks(async (near, far) => {
    near.send({ n: 1 });
    near.send({ n: 2 });
    await near.flush(15_000);
    await near.close();
    const heard: number[] = [];
    await assert.rejects(
      async () => {
        for await (const { n } of far) heard.push(n);
      },
      { code: "link_closed" },
    );
    assert.deepEqual(heard, [1, 2]);
    assert.equal((await far.ended).code, "link_closed");
    await assert.rejects(far.receive(15_000), { code: "link_closed" });
    assert.throws(() => far.send({ n: 3 }), { code: "link_closed" });
  });
});

Deno.test("Link.close() wakes a receive that waits", async () => {
  await withLinks(async (near) => {
    const waiting = assert.rejects(near.receive(15_000), { code: "link_closed", message: /closed on this side/ });
    await near.close();
    await waiting;
  });
});

Deno.test("Link ends with a ProtocolError at a corrupt frame, a truncated one, and a message of the wrong shape", async () => {
  const frame = encodeFrame({ n: 1 });
  const corrupt = frame.slice();
  corrupt[8] = 0xc1;
  const cases: readonly (readonly [Uint8Array<ArrayBuffer>, RegExp])[] = [
    [corrupt, /0xc1/],
    [new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), /exceeds the limit/],
    [encodeFrame({ m: 1 }), /it has no n/],
    [frame.slice(0, -1), /the stream ended/],
  ];
  for (const [bytes, message] of cases) {
    await withSocket(async (link, socket) => {
      await socket.write(bytes);
      await socket.closeWrite();
      await assert.rejects(link.receive(15_000), { code: "protocol", message });
      // The fault is not that of what is sent.
      assert.throws(() => link.send({ n: 1 }), { code: "link_closed", message });
      assert.equal(await socket.read(new Uint8Array(1)).catch(() => null), null);
    });
  }
});

Deno.test("Link.send() ends the link when the peer does not read", async () => {
  const [a, deaf] = await tcpPair();
  const link = new Link<Note, Note>(a, { ...options, outgoingBytes: 1 << 20 });
  const data = new Uint32Array(100_000);
  try {
    await assert.rejects(async () => {
      for (let n = 0; n < 1000; n++) {
        link.send({ n, data });
        await Promise.resolve();
      }
    }, { code: "link_overflow", message: /the bound is 1048576/ });
    assert.equal((await link.ended).code, "link_overflow");
  } finally {
    await link.close();
    deaf.close();
  }
});

Deno.test("Link ends when a peer floods it with messages that are not received", async () => {
  await withLinks(async (near, far) => {
    for (let n = 0; n < 20; n++) near.send({ n });
    assert.equal((await far.ended).message, "Cannot receive: 10 messages are waiting already");
  }, { incomingMessages: 10 });
});
