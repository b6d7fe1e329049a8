import assert from "node:assert/strict";

import { jsonPattern } from "../../../router/grammar/json_pattern.ts";

Deno.test("jsonPattern() keeps quotes, backslashes and control characters out of what matches everything", () => {
  for (const pattern of [".", "[^c]", "\\S", "\\W", "\\D"]) {
    const safe = new RegExp(`^${jsonPattern(pattern)}$`);
    for (const character of ['"', "\\", "\n", "\t"]) assert.ok(!safe.test(character), `${pattern} on ${character}`);
    assert.ok(safe.test("!"), pattern);
  }
  assert.ok(!new RegExp(`^${jsonPattern("\\s")}$`).test("\n"));
});

Deno.test("jsonPattern() leaves other patterns alone", () => {
  for (const pattern of ["^[a-z]{2,5}$", "\\d+\\.\\d", "[\\w.-]+@x", "(a|b)\\]"]) {
    assert.equal(jsonPattern(pattern), pattern);
  }
});

Deno.test("jsonPattern() refuses what JSON must escape", () => {
  for (const pattern of ['a"b', "\\n", "[\\S]", "\\\\"]) assert.throws(() => jsonPattern(pattern), SyntaxError);
});
