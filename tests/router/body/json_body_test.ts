/** Bodies to JSON, and what is refused before it costs anything. */

import assert from "node:assert/strict";

import { parseJsonBody } from "../../../router/body/json_body.ts";

const parse = (text: string) => parseJsonBody(new TextEncoder().encode(text));

Deno.test("parseJsonBody() gives what JSON.parse gives", () => {
  const value = { 'a"[[{': "\\", b: [1, { c: "é]}" }], d: null };
  assert.deepEqual(parse(JSON.stringify(value)), value);
  assert.deepEqual(parse(`\n{ }`), {});
});

Deno.test("parseJsonBody() names what is wrong without quoting the text", () => {
  for (
    const [text, message] of [
      ["", /it is empty$/],
      ['{"secret": tru}', /it is not JSON/],
      ["[1]", /expected a JSON object$/],
      [`{"a":${"[".repeat(100)}${"]".repeat(100)}}`, /more than 64 levels deep$/],
      [`{"a":[${"{},".repeat(100_001)}0]}`, /more than 100000 objects and arrays$/],
    ] as const
  ) {
    assert.throws(() => parse(text), (error: unknown) => {
      assert.ok(error instanceof Error);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("secret"));
      return true;
    });
  }
  assert.throws(() => parseJsonBody(Uint8Array.of(0x22, 0xff, 0x22)), /not valid UTF-8/);
});

Deno.test("parseJsonBody() allows brackets without end inside a text", () => {
  assert.equal(parse(JSON.stringify({ a: "[{".repeat(200_000) })).a, "[{".repeat(200_000));
});
