/** How many connections fit into a process's file descriptors. */

import assert from "node:assert/strict";

import { connectionLimit, descriptorLimit, parseDescriptorLimit } from "../../../router/server/connection_limit.ts";

Deno.test("connectionLimit() keeps a quarter of the descriptors, at least 64, for everything else", () => {
  assert.deepEqual([80, 256, 1024, 65_536].map((limit) => connectionLimit(undefined, limit)), [16, 192, 768, 4096]);
  assert.equal(connectionLimit(undefined, undefined), 768);
  assert.equal(connectionLimit(10_000, 65_536), 10_000);
  assert.equal(connectionLimit(10_000, undefined), 10_000);
  assert.throws(
    () => connectionLimit(193, 256),
    /maxConnections: at most 192 are possible with 256 file descriptors, given 193/,
  );
});

Deno.test("parseDescriptorLimit() reads the soft limit", () => {
  const text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            256                  4096   files\n";
  assert.equal(parseDescriptorLimit(text), 256);
  assert.equal(parseDescriptorLimit("Max open files  unlimited unlimited files"), Number.MAX_SAFE_INTEGER);
  assert.equal(parseDescriptorLimit(""), undefined);
  if (Deno.build.os === "linux") assert.ok(Number(descriptorLimit()) > 0);
});
