/** Several streams as one. */

import assert from "node:assert/strict";

import { interleave } from "../../../router/http/interleave.ts";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function* every(ms: number, count: number): AsyncGenerator<number> {
  for (let i = 0; i < count; i++) {
    await sleep(ms);
    yield i;
  }
}

Deno.test("interleave() keeps the order within each stream and loses nothing", async () => {
  const seen: number[][] = [[], [], []];
  for await (const { index, value } of interleave([every(3, 5), every(1, 9), every(2, 0)])) seen[index]?.push(value);
  assert.deepEqual(seen, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8], []]);
});

Deno.test("interleave() does not wait for the slow", async () => {
  const order: number[] = [];
  const gate = Promise.withResolvers<void>();
  async function* slow() {
    await gate.promise;
    yield 0;
  }
  for await (const { index } of interleave([slow(), every(1, 3)])) {
    order.push(index);
    if (order.length === 3) gate.resolve();
  }
  assert.deepEqual(order, [1, 1, 1, 0]);
});

Deno.test("interleave() asks for one value at a time", async () => {
  let made = 0;
  async function* counted() {
    for (;;) yield made++;
  }
  for await (const { value } of interleave([counted()])) if (value === 3) break;
  assert.ok(made <= 4, `${made} made for 4 taken`);
});

Deno.test("interleave() ends with the first failure, and of nothing at once", async () => {
  async function* failing(): AsyncGenerator<number> {
    yield 1;
    await sleep(1);
    throw new Error("broken");
  }
  const never: AsyncIterator<number> = { next: () => new Promise(() => {}) };
  await assert.rejects(async () => {
    for await (const _ of interleave([failing(), never]));
  }, /broken/);
  for await (const _ of interleave<number>([])) assert.fail("nothing to give");
});
