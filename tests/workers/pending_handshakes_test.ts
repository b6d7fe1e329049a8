/** Places in handshakes: who loses one to whom. */

import assert from "node:assert/strict";

import { PendingHandshakes } from "../../workers/pending_handshakes.ts";
import { until } from "../support/until.ts";

function many(pending: PendingHandshakes, address: string, count: number) {
  return Array.from({ length: count }, () => pending.begin(address));
}

interface Place {
  readonly signal: AbortSignal;
}

const lost = (places: readonly Place[]) => places.map(({ signal }) => Number(signal.aborted));

/** Waits until as many have lost their places as ever will, and whether any more do. */
async function afterGrace(places: readonly Place[], count: number): Promise<void> {
  await until(() => lost(places).filter(Boolean).length >= count);
  await new Promise((resolve) => setTimeout(resolve, 20));
}

Deno.test("PendingHandshakes bounds one address, and takes the oldest places of the largest when all are taken", async () => {
  const pending = new PendingHandshakes();
  const a = many(pending, "10.0.0.1", 9);
  const b = many(pending, "10.0.0.2", 7);
  const c = many(pending, "10.0.0.3", 2);
  await afterGrace([...a, ...b, ...c], 2);
  // The ninth of a took the place of its first; 8 + 7 + 1 are sixteen, so the last of c took a's second.
  assert.deepEqual(lost(a), [1, 1, 0, 0, 0, 0, 0, 0, 0]);
  assert.ok([...lost(b), ...lost(c)].every((isLost) => isLost === 0));
  for (const place of [...a, ...b, ...c]) pending.end(place);
  assert.equal(pending.size, 0);
});

Deno.test("PendingHandshakes keeps places for addresses that once proved themselves", async () => {
  const pending = new PendingHandshakes();
  pending.recognize("10.0.0.9");
  const peer = pending.begin("10.0.0.9");
  const strangers = Array.from({ length: 60 }, (_, i) => pending.begin(`10.1.0.${i}`));
  await afterGrace([peer, ...strangers], 44);
  assert.ok(!peer.signal.aborted);
  assert.equal(lost(strangers).filter(Boolean).length, 44);
  for (const place of [peer, ...strangers]) pending.end(place);
});

Deno.test("PendingHandshakes refuses those who come faster than any could lose its place", () => {
  const pending = new PendingHandshakes();
  const places = many(pending, "10.0.0.1", 64);
  assert.throws(() => pending.begin("10.0.0.1"), /64 others are in a handshake, at most 64 may/);
  assert.throws(() => pending.begin("10.0.0.2"), /at most 64 may/);
  for (const place of places) pending.end(place);
});
