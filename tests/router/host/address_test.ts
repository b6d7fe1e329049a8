/** Addresses as people write them. */

import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../../../router/host/address.ts";

Deno.test("parseAddress() reads names, IPv4 and IPv6 addresses, and formatAddress() writes them back", () => {
  for (
    const [text, hostname, port] of [
      ["worker-0.workers:8100", "worker-0.workers", 8100],
      ["10.0.0.7:0", "10.0.0.7", 0],
      ["[::1]:65535", "::1", 65535],
    ] as const
  ) {
    assert.deepEqual(parseAddress(text), { hostname, port });
    assert.equal(formatAddress({ hostname, port }), text);
  }
});

Deno.test("parseAddress() refuses what has no host, no port or too much of either", () => {
  for (const text of ["", "host", "host:", ":80", "::1", "::1:80", "host:70000", "host:80:90", "a b:80", "host:-1"]) {
    assert.throws(() => parseAddress(text), {
      code: "invalid_request",
      message: `Cannot parse address: must be host:port, given "${text}"`,
    });
  }
});
