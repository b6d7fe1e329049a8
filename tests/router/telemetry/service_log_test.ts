/** What a log line says of a request. */

import assert from "node:assert/strict";
import { ServiceLog } from "../../../router/telemetry/service_log.ts";
import { RequestError } from "../../../router/errors.ts";
import { finishedRecord, ORIGIN } from "../../support/request_records.ts";

function lines(format: "text" | "json", act: (log: ServiceLog) => void): string[] {
  const written: string[] = [];
  act(new ServiceLog(format, (line) => written.push(line)));
  return written;
}

Deno.test("ServiceLog.request() writes one text line with id, model, status, tokens and times", () => {
  assert.deepEqual(lines("text", (log) => log.request(finishedRecord())), [
    "1970-01-01T00:16:44.500Z req-1 127.0.0.1 alice POST /v1/chat/completions chatcmpl-1 tide-10m 200 stop: " +
    "100 (64 cached) prompt tokens, 5 tokens sparse, first after 2500 ms, 4500 ms",
  ]);
});

Deno.test("ServiceLog.request() writes JSON for collectors", () => {
  const [line = ""] = lines("json", (log) => log.request(finishedRecord()));
  assert.deepEqual(JSON.parse(line), {
    time: "1970-01-01T00:16:44.500Z",
    requestId: "req-1",
    client: "127.0.0.1",
    key: "alice",
    method: "POST",
    path: "/v1/chat/completions",
    id: "chatcmpl-1",
    operation: "chat",
    model: "tide-10m",
    promptTokens: 100,
    status: 200,
    outcome: "stop",
    cachedTokens: 64,
    completionTokens: 5,
    attention: "sparse",
    firstTokenMs: 2500,
    totalMs: 4500,
  });
});

Deno.test("ServiceLog.request() says how a request failed or in which phase its client left", () => {
  const none = { accepted: undefined, admittedAt: undefined, queueMs: undefined, firstTokenAt: undefined };
  const written = lines("text", (log) => {
    log.request(finishedRecord({ ...none, outcome: { kind: "failed", code: "queue_full", status: 429 } }));
    log.request(finishedRecord({ outcome: { kind: "failed", code: "worker_lost", status: 503 } }));
    log.request(finishedRecord({ outcome: { kind: "disconnected", phase: "decode" } }));
  });
  assert.match(written[0] ?? "", / chatcmpl-1 - 429 queue_full: 4500 ms$/);
  // The stream's status was sent before it failed.
  assert.match(written[1] ?? "", / tide-10m 200 worker_lost: /);
  assert.match(written[2] ?? "", / tide-10m 200 left while decode: /);
});

Deno.test("ServiceLog.answered() writes a line for every other request, .refused() for what was none", () => {
  const { key: _, ...stranger } = ORIGIN;
  const write = (log: ServiceLog) => {
    log.answered({ origin: { ...ORIGIN, path: "/health" }, status: 200, errorCode: undefined, totalMs: 1.4 });
    log.answered({ origin: { ...stranger, key: undefined }, status: 401, errorCode: "invalid_api_key", totalMs: 0 });
    log.refused("10.0.0.9", new RequestError("headers_too_large", "Cannot read"));
  };
  const text = lines("text", write).map((line) => line.replace(/^\S+ /, ""));
  assert.deepEqual(text, [
    "req-1 127.0.0.1 alice POST /health 200 ok: 1 ms",
    "req-1 127.0.0.1 - POST /v1/chat/completions 401 invalid_api_key: 0 ms",
    "- 10.0.0.9 - - - 431 headers_too_large",
  ]);
  const json = lines("json", write).map((line) => JSON.parse(line));
  assert.deepEqual(json.map(({ key, status, outcome }) => [key, status, outcome]), [
    ["alice", 200, "ok"],
    [undefined, 401, "invalid_api_key"],
    [undefined, 431, "headers_too_large"],
  ]);
});

Deno.test("ServiceLog.say() writes a sentence in either format", () => {
  assert.match(lines("text", (log) => log.say("Hello"))[0] ?? "", /^\d{4}-\d\d-\d\dT[\d:.]+Z Hello$/);
  assert.equal(JSON.parse(lines("json", (log) => log.say("two\nlines"))[0] ?? "").message, "two\nlines");
});
