import assert from "node:assert/strict";

import { MessageLines } from "../../../../router/commands/chat/message_lines.ts";

const CASES: readonly (readonly [lines: readonly string[], messages: readonly string[]])[] = [
  [["a", "b"], ["a", "b"]],
  [["a\\", "b\\", "c", "d"], ["a\nb\nc", "d"]],
  [['"""', "a", "", "  b", '"""', "c"], ["a\n\n  b", "c"]],
  [['"""a', 'b"""'], ["a\nb"]],
  [['"""a"""', "b"], ["a", "b"]],
  [['"""', "a\\", '"""'], ["a\\"]],
  [['say """ now'], ['say """ now']],
  [['"""', "never closed"], ["never closed"]],
  [["never continued\\"], ["never continued"]],
];

Deno.test("MessageLines makes messages of lines, blocks and continued lines", () => {
  for (const [lines, messages] of CASES) {
    const reader = new MessageLines();
    const whole = lines.flatMap((line) => reader.push(line) ?? []);
    assert.deepEqual([...whole, ...[reader.end() ?? []].flat()], messages, JSON.stringify(lines));
    assert.ok(!reader.isOpen);
  }
});

Deno.test("MessageLines bounds a message, and goes on with the next", () => {
  const reader = new MessageLines();
  reader.push('"""');
  const line = "x".repeat(2 ** 24);
  assert.throws(() => [1, 2, 3].forEach(() => reader.push(line)), { code: "too_long", message: /over 33554432 char/ });
  assert.equal(reader.push("next"), "next");
});
