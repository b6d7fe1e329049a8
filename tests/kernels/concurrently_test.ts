/** How much runs at a time, and what becomes of failures. */

import assert from "node:assert/strict";

import { Concurrently } from "../../kernels/concurrently.ts";

Deno.test("Concurrently runs so much at a time, in order, and the rest whatever fails", async () => {
  const work = new Concurrently(2);
  const begun: number[] = [];
  const ends = Array.from({ length: 4 }, () => Promise.withResolvers<void>());
  for (const [i, { promise }] of ends.entries()) {
    work.run(() => {
      begun.push(i);
      return promise;
    });
  }
  let isOver = false;
  const ended = work.ended().then(() => {
    isOver = true;
  });
  assert.deepEqual(begun, [0, 1]);
  ends[1]?.reject(new Error("second"));
  await turn();
  assert.deepEqual(begun, [0, 1, 2]);
  ends[2]?.reject(new Error("third"));
  ends[3]?.resolve();
  await turn();
  assert.deepEqual([begun, isOver], [[0, 1, 2, 3], false]);
  ends[0]?.resolve();
  await ended;
  assert.throws(() => work.rethrow(), /^Error: second$/);
});

Deno.test("Concurrently.ended() does not wait where there is nothing", async () => {
  const work = new Concurrently(1);
  await work.ended();
  work.rethrow();
});

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
