/** What a worker alone in its group reports of its choices: what an exchange sees of them, and at no cost to the answer. */

import assert from "node:assert/strict";

import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { recentOf, SINKS } from "../../../engine/layer_plan.ts";
import type { SetShape, SpanResult, SparseSettings } from "../../../engine/span.ts";
import { everyLogprob, logprobsOf, runTogether } from "../../support/engine_fixture.ts";
import { MemoryGroup } from "../../support/memory_group.ts";
import { FIXTURES } from "../../support/model_directory.ts";

const MODEL = { directory: `${FIXTURES}/llama-rope3` };
const CONTEXT = 400;
const PROMPT = Uint32Array.from({ length: CONTEXT }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);
const SETTINGS: readonly SparseSettings[] = [
  { budget: 64, heads: "kv_head" },
  { budget: 48, heads: "query_head" },
  { budget: 200, coverage: 0.9, heads: "kv_head" },
];
const TOKENS = Uint32Array.of(77);

Deno.test("Engine.run() reports what was chosen", async (t) => {
  // A group of one with an exchange, which sees each choice by another way than the report.
  const group = await MemoryGroup.open(MODEL, [4096]);
  for (const engine of group.engines) engine.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 });
  const host = new SessionHost(group, group.map);
  try {
    await t.step("in every shape of sets, and the bits stay the same", async () => {
      for (const sparse of SETTINGS) {
        const [silent, reported] = [
          await row(host, { sparse, reports: false }),
          await row(host, { sparse, reports: true }),
        ];
        assert.equal(silent.selections, undefined, "no one asked");
        assert.deepEqual(logprobsOf(reported), logprobsOf(silent));
        const [selection, ...others] = reported.selections ?? [];
        assert.equal(others.length, 0);
        assert.equal(selection?.layer, 1);
        const chosen = group.count.chosen.at(-1)?.lists.map((set) => [...set]);
        assert.deepEqual(selection?.sets.map((set) => [...set]), chosen);
      }
    });
    await t.step("for the rows that ask, among others with other budgets", () => askTogether(host));
  } finally {
    await group.close();
  }
});

async function row(
  host: SessionHost,
  { sparse, reports }: { readonly sparse: SparseSettings; readonly reports: boolean },
): Promise<SpanResult> {
  const session = host.open({ sampling: everyLogprob(512), sparse });
  await session.prefill(PROMPT, "none");
  const result = await session.run({
    kind: "decode",
    attention: "sparse",
    tokens: TOKENS,
    logits: "last",
    ...(reports && { reportsSelection: true }),
  });
  await session.close();
  return result;
}

async function askTogether(host: SessionHost): Promise<void> {
  const shapes: readonly [budget: number, heads: SetShape][] = [[64, "kv_head"], [20, "kv_head"], [100, "all_heads"]];
  const sessions = shapes.map(([budget, heads]) => host.open({ sparse: { budget, heads } }));
  for (const session of sessions) await session.prefill(PROMPT, "none");
  const plans = sessions.map((session, i) =>
    session.plan({
      kind: "decode",
      attention: "sparse",
      tokens: TOKENS,
      logits: "last",
      ...(i > 0 && { reportsSelection: true }),
    })
  );
  const { spans } = await runTogether(host, plans);
  assert.equal(spans[0]?.selections, undefined);
  for (const [i, [budget]] of shapes.entries()) {
    if (i === 0) continue;
    for (const set of spans[i]?.selections?.[0]?.sets ?? assert.fail("no report")) {
      assert.equal(set.length, budget);
      assert.deepEqual(set.subarray(0, SINKS), Uint32Array.of(0, 1, 2, 3));
      const recent = recentOf({ budget });
      const newest = Uint32Array.from({ length: recent }, (_, at) => CONTEXT + 1 - recent + at);
      assert.deepEqual(set.subarray(budget - recent), newest);
    }
  }
  for (const session of sessions) await session.close();
}
