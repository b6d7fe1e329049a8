/** Models in which only some layers have a window: in a group, and what is refused. One engine alone: `families_test.ts`. */

import assert from "node:assert/strict";

import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import { enginePool } from "../support/engine_pool.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { FIXTURES, readFixture } from "../support/model_directory.ts";
import type { RecordedAnswer } from "../support/recorded_answers.ts";

const pool = enginePool({ directory: `${FIXTURES}olmo3` }, [256, 256]);

Deno.test("A group gives the recorded tokens of a model whose layers see unlike far, and takes no calibration", async () => {
  const { prompts } = await readFixture<{ prompts: RecordedAnswer[] }>("olmo3/expected.json");
  // The longest prompt lies on three pages of two workers, and its window begins on the second.
  const { ids = [], greedy = [] } = prompts.at(-1) ?? {};
  const group = MemoryGroup.of(pool, [256, 256]);
  try {
    const session = new SessionHost(group, group.map).open();
    const { token } = await session.prefill(ids);
    assert.deepEqual(await session.generate(token ?? 0, { maxTokens: 8 }), greedy.slice(0, 8));
    await session.close();
    assert.throws(
      () => group.engines[0]?.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 }),
      /Cannot plan layers: sparse rows need layers that all see as far/,
    );
  } finally {
    await group.close();
  }
});
