/** The table of errors as clients see it. */

import assert from "node:assert/strict";

import { CodedError } from "../../kernels/errors.ts";
import { describeError, ERROR_TABLE, RequestError } from "../../router/errors.ts";

Deno.test("ERROR_TABLE is the one we publish", async (t) => {
  const rows = Object.keys(ERROR_TABLE).map((code) => {
    const { status, headers, body, internal } = describeError(new CodedError(code, "Cannot do it: 2 exceeds 1"));
    return { thrown: code, status, headers, internal, error: body.error };
  });
  await t.assertSnapshot(rows);
});

Deno.test("describeError() keeps the field at fault", () => {
  const error = new RequestError("invalid_request", "Cannot accept: n", { param: "n" });
  assert.equal(describeError(error).body.error.param, "n");
});

Deno.test("describeError() reveals nothing of what it does not know", () => {
  for (const thrown of [new Error("secret"), "secret", undefined, new CodedError("toString", "secret")]) {
    const { status, body, internal } = describeError(thrown);
    assert.deepEqual([status, internal, body.error.code], [500, true, "internal_error"]);
    assert.ok(!JSON.stringify(body).includes("secret"));
  }
});

Deno.test("Retry-After stays within what official clients obey", () => {
  for (const code of Object.keys(ERROR_TABLE)) {
    const retryAfter = Number(describeError(new CodedError(code, "x")).headers["retry-after"] ?? 1);
    assert.ok(retryAfter >= 1 && retryAfter <= 60, code);
  }
});
