/** A long row among many short ones: dispatched apart from them, and none has other bits than alone. */

import assert from "node:assert/strict";

import type { Session } from "../../engine/evaluation/hand_session.ts";
import type { SpanResult } from "../../engine/span.ts";
import { engineFixture, everyLogprob, logprobsOf, runTogether } from "../support/engine_fixture.ts";
import { Random } from "../support/random.ts";

const TEXT = 512;

/** Pages of the long row: those of the text again and again. */
const REPEATS = 6;
const SHORT = 58;
const VOCABULARY = 512;

const fixture = engineFixture({ random: "tiny" }, TEXT + 64 * (SHORT + 4));

Deno.test("rows of mixed lengths have the bits that they have alone, dense and sparse", async () => {
  const { host } = fixture;
  const random = new Random(5);
  const text = random.integers(TEXT, VOCABULARY);
  const options = { sampling: everyLogprob(VOCABULARY), sparse: { budget: 64, heads: "kv_head" } } as const;
  const origin = host.open();
  await origin.prefill(text, "none");
  for (const attention of ["sparse", "dense"] as const) {
    const row = { kind: "decode", attention, tokens: Uint32Array.of(7), logits: "last" } as const;
    const opened = (count: number): Session[] => [
      ...Array.from({ length: count - 1 }, (_, i) => host.share(origin, 192 + 64 * (i % 3), options)),
      host.openOn(Array.from({ length: REPEATS }, () => origin.pages).flat(), options),
    ];
    const results: SpanResult[][] = [];
    for (const groups of [[opened(SHORT + 1)], opened(SHORT + 1).map((session) => [session])]) {
      const spans: SpanResult[] = [];
      for (const sessions of groups) {
        // Those that are alone: a few of the short ones, and the long one.
        const isNeeded = sessions.length > 1 || spans.length < 3 || groups.at(-1) === sessions;
        if (isNeeded) spans.push(...(await runTogether(host, sessions.map((session) => session.plan(row)))).spans);
        for (const session of sessions) await session.close();
      }
      results.push(spans);
    }
    const [together = [], alone = []] = results;
    assert.equal(together.length, SHORT + 1);
    const same = [...together.slice(0, 3), ...together.slice(-1)];
    assert.deepEqual(same.map(logprobsOf), alone.map(logprobsOf), attention);
  }
  await origin.close();
});
