/** Requests that a client sends without waiting for answers: one at a time, in order, none for a client that has left. */

import assert from "node:assert/strict";
import { rawRequest } from "../../support/raw_http.ts";
import { ServedHttp } from "../../support/served_http.ts";
import { until } from "../../support/until.ts";

Deno.test("pipelined requests are answered one at a time and in their order", async () => {
  let running = 0;
  let most = 0;
  await using served = await ServedHttp.open(async (request) => {
    most = Math.max(most, ++running);
    const text = await request.text();
    await new Promise((resolve) => setTimeout(resolve, 5));
    running--;
    return Response.json({ text });
  });
  using client = await served.connect();
  const bodies = Array.from({ length: 20 }, (_, i) => `number-${i}-`);
  await client.send(bodies.map((body) => rawRequest("POST", "/x", { body })).join(""));
  await until(() => client.text.includes("number-19-"));
  assert.deepEqual(client.text.match(/number-\d+-/g), bodies);
  assert.equal(most, 1);
});

Deno.test("pipelined requests of a client that leaves are never begun, and the running one is noticed", async () => {
  let begun = 0;
  let noticed = 0;
  await using served = await ServedHttp.open(async (request) => {
    begun++;
    await request.text();
    await new Promise<void>((resolve) => request.signal.addEventListener("abort", () => resolve()));
    noticed++;
    return Response.json({});
  });
  using client = await served.connect();
  await client.send(rawRequest("POST", "/x", { body: "{}" }).repeat(20));
  await until(() => begun > 0);
  client[Symbol.dispose]();
  await until(() => noticed > 0 && served.server.connections === 0);
  assert.deepEqual({ begun, noticed }, { begun: 1, noticed: 1 });
});

Deno.test("a client that sends more than 65 requests without waiting is cut off", async () => {
  await using served = await ServedHttp.open((request) =>
    new Promise((resolve) => request.signal.addEventListener("abort", () => resolve(Response.json({}))))
  );
  using client = await served.connect();
  await client.send(rawRequest("GET", "/x").repeat(65));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(!client.isOver);
  await client.send(rawRequest("GET", "/x"));
  await client.ended(15_000);
});

Deno.test("an expectation that is not known is ignored", async () => {
  await using served = await ServedHttp.open(() => Promise.resolve(Response.json({ status: "ok" })));
  using client = await served.connect();
  await client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\nConnection: close\r\n\r\n");
  assert.match(await client.ended(15_000), /^HTTP\/1\.1 200 OK/);
});
