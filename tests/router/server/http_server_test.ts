/** The HTTP server on real sockets: who is noticed to have left, who is cut off, and what is told to broken clients. */

import assert from "node:assert/strict";

import { HttpServer, type RequestHandler } from "../../../router/server/http_server.ts";
import { rawRequest } from "../../support/raw_http.ts";
import { ServedHttp } from "../../support/served_http.ts";
import { until } from "../../support/until.ts";

const OK: RequestHandler["answer"] = () => Promise.resolve(Response.json({ status: "ok" }));

/** Resolves when a request's client is gone. */
function gone(request: Request): Promise<void> {
  return new Promise((resolve) => request.signal.addEventListener("abort", () => resolve()));
}

Deno.test("an abandoned request is noticed, whatever the size and packaging of its body", async (t) => {
  let begun = 0;
  let noticed = 0;
  await using served = await ServedHttp.open(async (request) => {
    await request.text();
    begun++;
    await gone(request);
    noticed++;
    return Response.json({});
  });
  for (const [name, size, isSplit] of [["small", 5, false], ["large", 5000, false], ["split", 5000, true]] as const) {
    await t.step(name, async () => {
      const before = noticed;
      const [head = "", body = ""] = rawRequest("POST", "/x", { body: "a".repeat(size) }).split("\r\n\r\n");
      using client = await served.connect();
      if (isSplit) {
        await client.send(`${head}\r\n\r\n`);
        await new Promise((resolve) => setTimeout(resolve, 20));
        await client.send(body);
      } else {
        await client.send(`${head}\r\n\r\n${body}`);
      }
      await until(() => begun > before);
      client[Symbol.dispose]();
      await until(() => noticed > before);
    });
  }
});

Deno.test("more silent connections than places: the newest are served, the oldest make room", async () => {
  await using served = await ServedHttp.open(OK, { maxConnections: 8 });
  const silent = await Promise.all(Array.from({ length: 30 }, () => served.connect()));
  assert.equal(await served.health(), 200);
  await until(() => silent.filter((client) => client.isOver).length >= 22);
  await until(() => served.server.connections <= 8);
  for (const client of silent) client[Symbol.dispose]();
  assert.equal(await served.health(), 200);
});

Deno.test("a connection that is being answered is never cut for another: the newcomer is", async () => {
  let begun = 0;
  const release = Promise.withResolvers<void>();
  await using served = await ServedHttp.open(async () => {
    begun++;
    await release.promise;
    return Response.json({ status: "ok" });
  }, { maxConnections: 2 });
  const clients = await Promise.all([served.connect(), served.connect()]);
  for (const client of clients) await client.send(rawRequest("GET", "/"));
  await until(() => begun === 2);
  using third = await served.connect();
  await third.ended(15_000);
  release.resolve();
  await until(() => clients.every((client) => client.text.includes("200 OK")));
  for (const client of clients) client[Symbol.dispose]();
});

Deno.test("a head that does not come in time is a 408, a client that says nothing is cut", async () => {
  await using served = await ServedHttp.open(OK, { headMs: 1000 });
  using slow = await served.connect();
  using silent = await served.connect();
  await slow.send("GET / HTTP/1.1\r\nHost: a\r\n");
  const answer = await slow.ended(15_000);
  assert.match(answer, /^HTTP\/1\.1 408 [^]*"type":"timeout"/);
  assert.equal(await silent.ended(15_000), "");
  assert.deepEqual(served.refused, ["request_timeout"]);
});

Deno.test("a kept-alive connection ends when idle, and a slow second head is a 408 too", async () => {
  await using served = await ServedHttp.open(OK, { idleMs: 1500, headMs: 1500 });
  using idle = await served.connect();
  using slow = await served.connect();
  for (const client of [idle, slow]) await client.send(rawRequest("GET", "/"));
  await until(() => slow.text.includes("ok"));
  await slow.send("GET / HTTP/1.1\r\n");
  assert.match(await idle.ended(15_000), /200 OK[^]*"ok"\}$/);
  assert.match(await slow.ended(15_000), /200 OK[^]*408/);
});

Deno.test("what is not HTTP is refused in the one shape, without a stack trace", async (t) => {
  await using served = await ServedHttp.open(OK);
  const cases: Readonly<Record<string, readonly [string, number]>> = {
    "a malformed Host": ["GET / HTTP/1.1\r\nHost: [[\r\n\r\n", 400],
    "a Host with spaces": ["GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400],
    "no Host": ["GET / HTTP/1.1\r\n\r\n", 400],
    "two Hosts": ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
    "a malformed request line": ["GET http://[::bad/ HTTP/1.1\r\nHost: a\r\n\r\n", 400],
    "garbage": ["\x00\x01\r\n\r\n", 400],
    "a head of 100 KB": [`GET / HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(100_000)}\r\n\r\n`, 431],
    "CONNECT": ["CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405],
    "two lengths": ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400],
  };
  for (const [name, [text, status]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const before = served.refused.length;
      using client = await served.connect();
      await client.send(text);
      const answer = await client.ended(15_000);
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `));
      const { error } = JSON.parse(answer.slice(answer.indexOf("{"), answer.lastIndexOf("}") + 1));
      assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
      assert.match(error.message, /^Cannot /);
      assert.equal(served.refused.length, before + 1);
    });
  }
});

Deno.test("HTTP/1.0 without a Host is answered", async () => {
  await using served = await ServedHttp.open(OK);
  using client = await served.connect();
  await client.send("GET / HTTP/1.0\r\n\r\n");
  assert.match(await client.ended(15_000), /200 OK/);
});

Deno.test("a stream stops being made while its client does not read, and ends when it leaves", async () => {
  let made = 0;
  let isCancelled = false;
  await using served = await ServedHttp.open(() => {
    const chunk = new Uint8Array(16_384).fill(65);
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        made += chunk.byteLength;
        controller.enqueue(chunk);
      },
      cancel: () => void (isCancelled = true),
    }, { highWaterMark: 0 });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  });
  using client = await served.connect({ reads: false });
  await client.send(rawRequest("GET", "/"));
  for (let before = -1; made === 0 || made !== before;) {
    before = made;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  // The buffers of two sockets, which the kernel lets grow to some megabytes.
  assert.ok(made < 32 * 2 ** 20, `${made} bytes were made for a client that reads nothing`);
  client[Symbol.dispose]();
  await until(() => isCancelled);
});

Deno.test("a client that leaves while the next frame is awaited is no error", async () => {
  let isCancelled = false;
  await using served = await ServedHttp.open(() => {
    let frames = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (frames++ > 0) return new Promise(() => {});
        controller.enqueue(new TextEncoder().encode("data: 1\n\n"));
      },
      cancel: () => void (isCancelled = true),
    }, { highWaterMark: 0 });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  });
  using client = await served.connect();
  await client.send(rawRequest("GET", "/"));
  await until(() => client.text.includes("data: 1"));
  client[Symbol.dispose]();
  await until(() => isCancelled);
  // The adapter may report late.
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(served.errors, []);
});

Deno.test("a stream that fails is cut off: to the client it must not look whole", async () => {
  const received = Promise.withResolvers<void>();
  await using served = await ServedHttp.open(() => {
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode("data: 1\n\n"));
        await received.promise;
        controller.error(new DOMException("The client stopped reading", "TimeoutError"));
      },
    });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  });
  using client = await served.connect();
  await client.send(rawRequest("GET", "/"));
  await until(() => client.text.includes("data: 1"));
  received.resolve();
  const text = await client.ended(15_000);
  assert.ok(!text.endsWith("0\r\n\r\n"), "no last chunk");
  assert.doesNotMatch(text, /Error/);
});

Deno.test("HttpServer.shutdown() lets answers finish, closes idle connections and takes no new ones", async () => {
  let isSlowBegun = false;
  const release = Promise.withResolvers<void>();
  await using served = await ServedHttp.open(async (request) => {
    if (new URL(request.url).pathname === "/slow") {
      isSlowBegun = true;
      await release.promise;
    }
    return Response.json({ status: "ok" });
  });
  const { port } = served;
  using slow = await served.connect();
  using idle = await served.connect();
  await idle.send(rawRequest("GET", "/"));
  await slow.send(rawRequest("GET", "/slow"));
  await until(() => isSlowBegun && idle.text.includes("ok"));
  const down = served.server.shutdown();
  await idle.ended(15_000);
  await assert.rejects(Deno.connect({ hostname: "127.0.0.1", port }), Deno.errors.ConnectionRefused);
  release.resolve();
  assert.match(await slow.ended(15_000), /200 OK[^]*[Cc]onnection: close[^]*"ok"/);
  await down;
});

Deno.test("HttpServer.listen() names an address that is taken", async () => {
  await using served = await ServedHttp.open(OK);
  const options = { host: "127.0.0.1", port: served.port, maxConnections: 1, tls: undefined };
  await assert.rejects(HttpServer.listen(options), {
    message: `Cannot listen on 127.0.0.1:${served.port}: something else listens there already`,
  });
});
