/** Stores of replicas: bounded, the same wherever the same happens, and quick to drop what is rewritten. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { ReplicaStore } from "../../../engine/kv/replica_store.ts";
import { SequenceReplicas } from "../../../engine/kv/sequence_replicas.ts";

/** Finds or adds a round's positions. @returns those that were added */
function round(store: ReplicaStore, positions: readonly number[]): number[] {
  store.beginRound();
  const absent = positions.filter((position) => store.use(position) === undefined);
  for (const position of absent) store.add(position);
  return absent;
}

Deno.test("ReplicaStore holds what a round uses, in slots of its own, however often it is asked", () => {
  const rounds = fc.array(fc.uniqueArray(fc.nat(200), { minLength: 1, maxLength: 8 }), { maxLength: 40 });
  fc.assert(fc.property(rounds, fc.nat(200), (rounds, cut) => {
    const store = new ReplicaStore(16);
    for (const [i, positions] of rounds.entries()) {
      round(store, positions);
      const slots = positions.map((position) => store.use(position));
      assert.equal(new Set(slots).size, positions.length);
      assert.ok(slots.every((slot) => slot !== undefined && slot < 16));
      if (i !== 20) continue;
      store.dropFrom(cut);
      for (const position of positions) assert.equal(store.use(position) === undefined, position >= cut);
    }
  }));
});

Deno.test("ReplicaStore gives up what was not used for long, and spares what is used again and again", () => {
  const store = new ReplicaStore(8);
  round(store, [0, 1]);
  // Position 0 stays in use while others come and go.
  for (let next = 2; next < 40; next++) assert.deepEqual(round(store, [0, next]), [next]);
  assert.deepEqual(round(store, [1]), [1]);
});

Deno.test("ReplicaStore refuses a round that needs more slots than there are", () => {
  const store = new ReplicaStore(4);
  assert.throws(() => round(store, [1, 2, 3, 4, 5]), /all 4 slots are used in this round/);
});

function replicas(shape: "kv_head" | "query_head" | "all_heads"): SequenceReplicas {
  const config = { heads: 4, kvHeads: 2 };
  return new SequenceReplicas({ room: { ring: 64, store: 64 }, pages: [7, 8], firstRow: 1000, config, shape });
}

Deno.test("SequenceReplicas.find() names a row that several sets lack once, for each KV head or for all", () => {
  const sets = [[5, 9], [5, 10], [6], [6]].map((set) => Uint32Array.from(set));
  const perQuery = replicas("query_head").find(3, sets);
  assert.deepEqual(perQuery.missing.map(({ position, kvHead }) => [position, kvHead]), [[5, 0], [9, 0], [10, 0], [
    6,
    1,
  ]]);
  assert.equal(perQuery.rows[0]?.[0], perQuery.rows[1]?.[0]);
  const all = replicas("all_heads");
  assert.deepEqual(all.find(3, sets.slice(0, 1)).missing.map(({ kvHead }) => kvHead), [undefined, undefined]);
  assert.deepEqual(all.find(3, sets.slice(0, 1)).missing, []);
  assert.equal(all.find(4, sets.slice(0, 1)).missing.length, 2, "each select layer has stores of its own");
});

Deno.test("SequenceReplicas finds what was appended in the ring, until the ring has come round", () => {
  const sequence = replicas("kv_head");
  const row = sequence.append(100);
  assert.equal(row, 1000 + 100 % 64);
  const sets = [Uint32Array.of(100), Uint32Array.of(100)];
  assert.deepEqual(sequence.find(2, sets), { rows: [Uint32Array.of(row), Uint32Array.of(row)], missing: [] });
  sequence.append(164);
  assert.equal(sequence.find(2, sets).missing.length, 2);
  sequence.dropFrom(100);
  assert.equal(sequence.find(2, sets).missing.length, 2, "a rewritten row is sent again");
});

Deno.test("SequenceReplicas of workers that saw the same have the same digest, others another", () => {
  const [one, two, other] = ["kv_head", "kv_head", "kv_head"].map(() => replicas("kv_head"));
  for (const sequence of [one, two, other]) {
    sequence?.append(70);
    sequence?.find(2, [Uint32Array.of(3, 70), Uint32Array.of(4)]);
  }
  other?.dropFrom(50);
  assert.equal(one?.digest, two?.digest);
  assert.notEqual(one?.digest, other?.digest);
});
