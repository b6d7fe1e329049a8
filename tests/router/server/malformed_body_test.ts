/**
 * Bodies that are not valid HTTP, or not as long as their head says, on real sockets in front of the application: who
 * can still be answered is told what was wrong, and who cannot is noticed at once.
 */

import assert from "node:assert/strict";

import { AccessControl, type AnsweredRequest } from "../../../router/access/access_control.ts";
import { AllowedHosts } from "../../../router/access/allowed_hosts.ts";
import { AllowedOrigins } from "../../../router/access/allowed_origins.ts";
import { ClientQuota } from "../../../router/access/client_quota.ts";
import { HttpServer } from "../../../router/server/http_server.ts";
import { RawHttp } from "../../support/raw_http.ts";
import { TestService } from "../../support/test_service.ts";
import { until } from "../../support/until.ts";

const BODY = JSON.stringify({ messages: [{ role: "user", content: "Hi" }] });
const HEX = BODY.length.toString(16);

/** For an answer to what is malformed, and to notice who has left: milliseconds, but on a loaded machine; else a body has a minute. */
const AT_ONCE_MS = 30_000;

interface Stage {
  readonly service: TestService;
  readonly port: number;
  /** Requests that no recorder followed. */
  readonly lines: AnsweredRequest[];
}

/** The application on a socket, behind everything that a request passes. */
async function serving(test: (stage: Stage) => Promise<void>): Promise<void> {
  using service = await TestService.open();
  const server = await HttpServer.listen({ host: "127.0.0.1", port: 0, maxConnections: 100, tls: undefined });
  const lines: AnsweredRequest[] = [];
  const access = new AccessControl((request) => service.app.fetch(request), {
    hosts: new AllowedHosts("127.0.0.1", []),
    origins: new AllowedOrigins([]),
    keys: undefined,
    quota: new ClientQuota(undefined),
    onAnswered: (line) => lines.push(line),
    onInternalError: (error) => assert.fail(String(error)),
  });
  server.serve({
    answer: (request, peer) => access.answer(request, peer),
    onRefused: (_, error) => assert.fail(`refused without its request: ${error}`),
    onError: (error) => assert.fail(String(error)),
  });
  try {
    await test({ service, port: server.address.port, lines });
    await until(() => server.connections === 0, AT_ONCE_MS);
    assert.deepEqual(service.internalErrors, []);
    // The adapter gives the rest of a body so long to arrive.
    await new Promise((resolve) => setTimeout(resolve, 600));
  } finally {
    await server.close();
  }
}

const head = (framing: string, path = "/v1/chat/completions") =>
  `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: mine\r\n${framing}\r\n\r\n`;

const CHUNKED = "Transfer-Encoding: chunked";

/** What follows the head, and how the head announces it. */
const MALFORMED: Readonly<Record<string, readonly [string, string]>> = {
  "a chunk size that is no number": [CHUNKED, `zz\r\n${BODY}\r\n0\r\n\r\n`],
  "a bad size after a good chunk": [CHUNKED, `5\r\n{"mes\r\n-1\r\n`],
  "a chunk longer than its size": [CHUNKED, `2\r\n${BODY}\r\n0\r\n\r\n`],
  "a size beyond 64 bits": [CHUNKED, `ffffffffffffffffff\r\n${BODY}\r\n`],
  "a trailer that is no header": [CHUNKED, `${HEX}\r\n${BODY}\r\n0\r\nno header\r\n\r\n`],
  "more than Content-Length says": [`Content-Length: ${BODY.length - 2}`, BODY],
};

Deno.test("bodies that are not valid HTTP, or not as long as their head says", async (t) => {
  await serving(async (stage) => {
    for (const [name, body] of Object.entries(MALFORMED)) await t.step(name, () => isRefused(stage, body));
    await t.step("on a route without a recorder, with one line in the log", () => isRefusedElsewhere(stage));
    await t.step("garbage after a whole request does not spoil its answer", () => isAnswered(stage));
    for (const framing of [CHUNKED, `Content-Length: ${BODY.length + 100}`]) {
      for (const leave of ["half", "whole"] as const) {
        await t.step(
          `a client that leaves (${leave}) before its end: ${framing}`,
          () => isNoticed(stage, framing, leave),
        );
      }
    }
  });
});

/** In one packet with its head, and after it. */
async function isRefused({ service, port }: Stage, [framing, body]: readonly [string, string]): Promise<void> {
  for (const parts of [[head(framing) + body], [head(framing), body]]) {
    const before = service.observer.outcomes.length;
    using client = await RawHttp.open(port);
    for (const part of parts) {
      await client.send(part);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const answer = await client.ended(AT_ONCE_MS);
    assert.match(answer, /^HTTP\/1\.1 400 [^]*\r\nx-request-id: mine\r\n/i);
    assert.match(answer, /\r\nconnection: close\r\n/i);
    const { error } = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4));
    // A body that ends too early is valid HTTP, and half an object.
    assert.match(error.message, /^Cannot (read the request: it is not valid HTTP|parse the body: it is not JSON)/);
    assert.deepEqual([error.type, error.param, error.code], ["invalid_request_error", null, null]);
    await until(() => service.observer.outcomes.length > before);
    assert.deepEqual(service.observer.outcomes.slice(before), [{
      kind: "failed",
      code: "invalid_request",
      status: 400,
    }]);
  }
}

async function isRefusedElsewhere({ port, lines }: Stage): Promise<void> {
  const before = lines.length;
  using client = await RawHttp.open(port);
  await client.send(head(CHUNKED, "/tokenize"), "zz\r\n");
  assert.match(await client.ended(AT_ONCE_MS), /^HTTP\/1\.1 400 [^]*it is not valid HTTP/);
  await until(() => lines.length > before);
  assert.deepEqual(lines.slice(before).map(({ status, errorCode }) => [status, errorCode]), [[400, "invalid_request"]]);
}

async function isAnswered({ port }: Stage): Promise<void> {
  using client = await RawHttp.open(port);
  await client.send(`${head(`Content-Length: ${BODY.length}`)}${BODY}\x00\x01garbage\r\n\r\n`);
  const answer = await client.ended(AT_ONCE_MS);
  assert.match(answer, /^HTTP\/1\.1 200 [^]*Hello, wide world!/);
  assert.equal(answer.match(/HTTP\/1\.1/g)?.length, 1);
}

async function isNoticed({ service, port }: Stage, framing: string, leave: "half" | "whole"): Promise<void> {
  const before = service.observer.outcomes.length;
  using client = await RawHttp.open(port);
  await client.send(head(framing), framing === CHUNKED ? `${HEX}\r\n${BODY}\r\n` : BODY);
  await until(() => service.observer.moments.at(-1)?.startsWith("received") ?? false);
  if (leave === "half") await client.halfClose();
  else client[Symbol.dispose]();
  await until(() => service.observer.outcomes.length > before, AT_ONCE_MS);
  assert.deepEqual(service.observer.outcomes.at(-1), { kind: "disconnected", phase: "reading" });
}
