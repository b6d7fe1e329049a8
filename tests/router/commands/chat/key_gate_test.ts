import assert from "node:assert/strict";

import { KeyGate } from "../../../../router/commands/chat/key_gate.ts";

function gate() {
  let interrupts = 0;
  const made = new KeyGate(() => interrupts++);
  const passed = async () => {
    const chunks: unknown[] = [];
    for (let turn = 0; turn < 3; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      for (let chunk = made.keys.read(); chunk !== null; chunk = made.keys.read()) chunks.push(chunk);
    }
    return chunks.join("");
  };
  return { gate: made, passed, interrupts: () => interrupts };
}

Deno.test("KeyGate lets a line through where one is asked for, and keeps what follows for the next", async () => {
  const { gate: keys, passed } = gate();
  keys.type("early");
  assert.equal(await passed(), "");
  keys.open();
  assert.equal(await passed(), "early");
  keys.type(" bird\rnext");
  assert.equal(await passed(), " bird\r");
  keys.type(" one\r");
  assert.equal(await passed(), "");
  keys.open();
  assert.equal(await passed(), "next one\r");
});

Deno.test("KeyGate passes Ctrl-C on where a line is asked for; else it drops what was typed and interrupts", async () => {
  const { gate: keys, passed, interrupts } = gate();
  keys.type("junk\x03");
  assert.equal(interrupts(), 1);
  keys.open();
  assert.equal(await passed(), "");
  keys.type("a\x03");
  assert.equal(await passed(), "a\x03");
  assert.equal(interrupts(), 1);
});

Deno.test("KeyGate keeps the lines of a paste together, however its markers are cut", async () => {
  const typed = "<\x1b[200~a\r\nb\n\x1b[201~>\x1b[A\r";
  for (let cut = 0; cut <= typed.length; cut++) {
    const { gate: keys, passed } = gate();
    keys.open();
    keys.type(typed.slice(0, cut));
    keys.type(typed.slice(cut));
    // Between the two characters of one line break a paste may be cut into two.
    assert.equal((await passed()).replace("↵↵b", "↵b"), "<a↵b↵>\x1b[A\r", `cut at ${cut}`);
  }
});

Deno.test("KeyGate bounds what waits", async () => {
  const { gate: keys, passed } = gate();
  for (let i = 0; i < 20; i++) keys.type("x".repeat(100_000));
  keys.open();
  assert.equal((await passed()).length, 2 ** 20);
});
