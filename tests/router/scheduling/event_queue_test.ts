/** The queue keeps order, distinguishes a slow reader from a gone one, and never leaves a reader waiting. */

import assert from "node:assert/strict";
import { EventQueue } from "../../../router/scheduling/event_queue.ts";
import type { GenerationEvent } from "../../../router/scheduling/generation.ts";

function token(id: number): GenerationEvent {
  return { kind: "token", token: id, logprobs: undefined };
}

function setUp(capacity = 4) {
  const heard = { room: 0, leave: 0 };
  const queue = new EventQueue(capacity, { onRoom: () => heard.room++, onLeave: () => heard.leave++ });
  return { queue, heard };
}

Deno.test("EventQueue hands out events in order, whether the reader or the writer comes first", async () => {
  const { queue } = setUp();
  const early = [queue.next(), queue.next()];
  [1, 2, 3].forEach((id) => queue.push(token(id)));
  queue.end();
  const seen = (await Promise.all(early)).map(({ value }) => value);
  for await (const event of queue) seen.push(event);
  assert.deepEqual(seen, [token(1), token(2), token(3)]);
});

Deno.test("EventQueue is full at its capacity and has room again when half is read", async () => {
  const { queue, heard } = setUp(4);
  for (let i = 0; i < 4; i++) queue.push(token(i));
  assert.ok(queue.full);
  await queue.next();
  assert.ok(queue.full);
  assert.equal(heard.room, 0);
  await queue.next();
  assert.ok(!queue.full);
  assert.equal(heard.room, 1);
});

Deno.test("EventQueue keeps the newest progress only", async () => {
  const { queue } = setUp(2);
  for (let processed = 1; processed < 9; processed++) {
    queue.push({ kind: "prefill", total: 9, cached: 0, processed });
  }
  assert.ok(!queue.full);
  assert.deepEqual((await queue.next()).value, { kind: "prefill", total: 9, cached: 0, processed: 8 });
});

Deno.test("EventQueue.end() throws its error once, after what is queued", async () => {
  const { queue } = setUp();
  queue.push(token(1));
  queue.end(new Error("late"));
  queue.push(token(2));
  assert.deepEqual((await queue.next()).value, token(1));
  await assert.rejects(queue.next(), /late/);
  assert.deepEqual(await queue.next(), { done: true, value: undefined });
});

Deno.test("EventQueue.return() notifies the owner and ends a reader that waits", async () => {
  const { queue, heard } = setUp();
  const waiting = queue.next();
  await queue.return();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  assert.equal(heard.leave, 1);
});
