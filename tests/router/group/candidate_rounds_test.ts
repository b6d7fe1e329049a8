/** Rounds of candidates: complete when all workers have answered, refused when they contradict each other. */

import assert from "node:assert/strict";
import { CandidateRounds } from "../../../router/group/candidate_rounds.ts";
import type { CandidateLists } from "../../../workers/protocol.ts";

const ROWS = [{ sequence: 4, position: 90, budget: 2, sets: 1 }, { sequence: 5, position: 70, budget: 1, sets: 2 }];

function candidates(lists: readonly (readonly [position: number, value: number])[][], layer = 2): CandidateLists {
  return {
    epoch: 1,
    step: 7,
    batch: 0,
    layer,
    rows: ROWS,
    lengths: Uint32Array.from(lists, ({ length }) => length),
    positions: Uint32Array.from(lists.flat(), ([position]) => position),
    values: Float32Array.from(lists.flat(), ([, value]) => value),
  };
}

Deno.test("CandidateRounds.take() chooses list by list once the last worker has answered, each budget by its row", () => {
  const rounds = new CandidateRounds(2, 7);
  assert.equal(rounds.take(1, candidates([[[64, 5], [70, 9]], [], [[65, 1]]])), undefined);
  assert.equal(rounds.take(0, candidates([[], [], []], 6)), undefined, "another layer is another round");
  const choice = rounds.take(0, candidates([[[3, 7]], [], [[4, 1]]]));
  assert.deepEqual(choice?.lists, [Uint32Array.of(3, 70), new Uint32Array(0), Uint32Array.of(4)]);
  assert.deepEqual(choice?.message, {
    epoch: 1,
    step: 7,
    batch: 0,
    layer: 2,
    lengths: Uint32Array.of(2, 0, 1),
    positions: Uint32Array.of(3, 70, 4),
  });
});

Deno.test("CandidateRounds.take() refuses another step, the same worker twice, other rows and broken lists", () => {
  const some = candidates([[[3, 7]], [], []]);
  const refused = (change: Partial<CandidateLists>, message: RegExp, worker = 1) => {
    const rounds = new CandidateRounds(2, 7);
    rounds.take(0, some);
    assert.throws(() => rounds.take(worker, { ...some, ...change }), { code: "protocol", message });
  };
  refused({ step: 6 }, /of step 6: step 7 runs/);
  refused({}, /come twice/, 0);
  refused({ rows: [...ROWS].reverse() }, /other rows/);
  refused({ lengths: Uint32Array.of(1) }, /other rows/);
  refused({ lengths: Uint32Array.of(1, 1, 0) }, /hold 2 elements together, given 1/);
});
