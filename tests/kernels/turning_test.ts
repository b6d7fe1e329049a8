import assert from "node:assert/strict";
import { whileTurning } from "../../kernels/turning.ts";

Deno.test("whileTurning() gives what the promise gives, at once or later", async () => {
  assert.equal(await whileTurning(Promise.resolve(1)), 1);
  assert.equal(await whileTurning(new Promise((resolve) => setTimeout(() => resolve(2), 20))), 2);
  await assert.rejects(whileTurning(Promise.reject(new Error("no"))), /no/);
});

Deno.test("whileTurning() keeps the event loop turning while it waits", async () => {
  let turns = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const turn = () => ++turns < 20 ? setTimeout(turn, 0) : resolve();
  turn();
  await whileTurning(promise);
  assert.equal(turns, 20);
});
