/** What is new in a selection, and what stores of several sizes lack of it. */

import assert from "node:assert/strict";

import { ChurnTally } from "../../../engine/evaluation/churn.ts";

function chosen(...positions: readonly number[]) {
  return [{ layer: 2, sets: [Uint32Array.from(positions)] }];
}

Deno.test("ChurnTally counts new and missing positions of the rows after the first, by store", () => {
  // A ring of 64 rows holds 440 and what follows; stores have 64 and 128 slots, their sets up to 32 positions.
  const tally = new ChurnTally({
    config: { heads: 2, kvHeads: 1 },
    sparse: { budget: 32, heads: "kv_head" },
    stores: [2, 4],
    uncounted: 1,
  });
  const block = (first: number) => Array.from({ length: 32 }, (_, i) => first + i);
  tally.add(500, chosen(...block(0)));
  tally.add(501, chosen(...block(0).slice(0, 31), 501));
  assert.deepEqual(tally.figures, { setSize: 32, fresh: 1 / 32, missing: [0, 0] });
  // Of the first set the small store has spared what was chosen twice, the large one everything.
  tally.add(502, chosen(...block(100)));
  tally.add(503, chosen(...block(200)));
  tally.add(504, chosen(...block(0)));
  const { fresh, missing } = tally.figures;
  assert.equal(fresh, (1 + 3 * 32) / 128);
  assert.deepEqual(missing.map((share) => share * 128), [2 * 32 + 1, 2 * 32]);
});
