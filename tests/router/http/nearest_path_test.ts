import assert from "node:assert/strict";

import { nearestPath } from "../../../router/http/nearest_path.ts";

const KNOWN = [
  "/v1/chat/completions",
  "/v1/completions",
  "/v1/models",
  "/v1/responses",
  "/v1/messages",
  "/tokenize",
  "*",
];

for (
  const [path, expected] of [
    ["/chat/completions", "/v1/chat/completions"],
    ["/v1/v1/chat/completions", "/v1/chat/completions"],
    ["/v1/chat/completion", "/v1/chat/completions"],
    ["/models", "/v1/models"],
    ["/v1/response", "/v1/responses"],
    ["/api/chat", "/v1/chat/completions"],
    ["/v1/tokenize", "/tokenize"],
    ["/v1/embeddings", undefined],
    ["/favicon.ico", undefined],
    ["/", undefined],
    [`/${"x".repeat(100_000)}`, undefined],
  ] as const
) {
  Deno.test(`nearestPath() of ${path.slice(0, 40)} is ${expected}`, () =>
    assert.equal(nearestPath(path, KNOWN), expected));
}
