/** Bodies within limits, one by one and all together. */

import assert from "node:assert/strict";

import { RequestError } from "../../../router/errors.ts";
import { BodyReader, DEFAULT_LIMITS } from "../../../router/http/limits.ts";

function requestOf(bytes: number, headers: HeadersInit = {}): Request {
  return new Request("http://test/", { method: "POST", body: new Uint8Array(bytes), headers });
}

function refused(code: string) {
  return (error: unknown) => error instanceof RequestError && error.code === code;
}

Deno.test("BodyReader.read() takes a body of exactly the limit and nothing more", async () => {
  const reader = new BodyReader({ ...DEFAULT_LIMITS, bodyBytes: 1000 });
  const body = await reader.read(requestOf(1000));
  assert.equal(body.bytes.byteLength, 1000);
  await assert.rejects(reader.read(requestOf(1001)), refused("request_too_large"));
  const declared = requestOf(1, { "content-length": "1001" });
  await assert.rejects(reader.read(declared), refused("request_too_large"));
  assert.ok(!declared.bodyUsed, "refused before a byte was read");
});

Deno.test("BodyReader.read() bounds what all bodies hold together, until they are released", async () => {
  const reader = new BodyReader({ ...DEFAULT_LIMITS, pendingBodyBytes: 1500 });
  const first = await reader.read(requestOf(1000));
  await assert.rejects(reader.read(requestOf(1000)), refused("queue_full"));
  assert.equal(reader.pendingBytes, 1000);
  first.release();
  first.release();
  assert.equal(reader.pendingBytes, 0);
  (await reader.read(requestOf(1000))).release();
});

Deno.test("BodyReader.read() takes no body for an empty one", async () => {
  const body = await new BodyReader(DEFAULT_LIMITS).read(new Request("http://test/", { method: "POST" }));
  assert.equal(body.bytes.byteLength, 0);
});
