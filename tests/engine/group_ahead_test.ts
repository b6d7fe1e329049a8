/** Steps of a group that follow each other closely: whole sequences on the lead alone, and others whose tokens the lead sends. */

import assert from "node:assert/strict";
import { GREEDY, SessionHost } from "../../engine/evaluation/hand_session.ts";
import type { SparseSettings } from "../../engine/span.ts";
import { enginePool } from "../support/engine_pool.ts";
import { MemoryGroup } from "../support/memory_group.ts";

const pool = enginePool({ random: "tiny" }, [1024, 512]);
const SPARSE: SparseSettings = { budget: 64, heads: "kv_head" };
const ROWS = 12;

/** What two sequences draw, dense and sparse rows in turn, and what was exchanged for it. */
async function draw({ alike, ahead }: { readonly alike: boolean; readonly ahead: boolean }) {
  const group = MemoryGroup.of(pool, [1024, 512], { alike, sparseExchange: "states" });
  for (const engine of group.engines) engine.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 });
  try {
    const host = new SessionHost(group, group.map);
    const sampling = { ...GREEDY, temperature: 0.9, seed: 5 };
    const sessions = [0, 1].map((pageOffset) => host.open({ sampling, sparse: SPARSE, pageOffset }));
    const drawn: number[][] = [];
    for (const [i, session] of sessions.entries()) {
      const tokens = Uint32Array.from({ length: 200 + 90 * i }, (_, at) => 8 + (at * 37 + i) % 500);
      drawn.push([(await session.prefill(tokens)).token ?? NaN]);
    }
    const { states } = group.count;
    const pending: Promise<void>[] = [];
    for (let at = 0; at < ROWS; at++) {
      const attention = at % 3 === 0 ? "dense" : "sparse";
      const plans = sessions.map((session, i) => {
        const isSampled = ahead && at > 0;
        const tokens = Uint32Array.of(isSampled ? 0 : drawn[i]?.at(-1) ?? NaN);
        return session.plan({ kind: "decode", attention, tokens, logits: "last", ...(isSampled && { sampled: true }) });
      });
      const running = host.run({
        open: [],
        release: [],
        spans: plans.flatMap(({ spans }) => spans),
        ...(ahead && { followed: true }),
      }).then((result) => {
        result.spans.forEach(({ token = NaN }, i) => drawn[i]?.push(token));
      });
      pending.push(running);
      if (pending.length > (ahead ? 1 : 0)) await pending.shift();
    }
    await Promise.all(pending);
    for (const session of sessions) await session.close();
    return { drawn, states: group.count.states - states };
  } finally {
    await group.close();
  }
}

Deno.test("A group draws the same one step ahead as step by step, by copies and by states", async () => {
  const copied = await draw({ alike: true, ahead: false });
  assert.ok(new Set(copied.drawn.flat()).size > 6);
  assert.equal(copied.states, 0);
  assert.deepEqual(await draw({ alike: true, ahead: true }), copied);
  const exchanged = await draw({ alike: false, ahead: false });
  assert.deepEqual(exchanged.drawn, copied.drawn);
  assert.ok(exchanged.states > 0);
  assert.deepEqual(await draw({ alike: false, ahead: true }), exchanged);
});

Deno.test("A group computes its first step, whatever step failed before it was formed", async () => {
  const open = () => MemoryGroup.of(pool, [1024, 512], { alike: false, sparseExchange: "states" });
  const prompt = Uint32Array.from({ length: 200 }, (_, at) => 8 + at);
  let group = open();
  try {
    const session = new SessionHost(group, group.map).open();
    const { token = NaN } = await session.prefill(prompt);
    const { spans } = session.plan({
      kind: "decode",
      attention: "dense",
      tokens: Uint32Array.of(token),
      logits: "last",
    });
    const masked = spans.map((span) => ({ ...span, masksFollow: true as const }));
    const step = { index: 99, deadlineMs: 60_000, open: [], release: [], spans: masked };
    const noMasks = Promise.reject(new Error("no masks come"));
    const failed = group.engines.map((engine) => engine.run(step, noMasks));
    await assert.rejects(failed[0] ?? assert.fail(), /no masks come/);
    await group.close();
    await Promise.allSettled(failed);
    group = open();
    assert.equal((await new SessionHost(group, group.map).open().prefill(prompt)).token, token);
  } finally {
    await group.close();
  }
});
