/** Adaptive budgets on an engine: what they read, what bounds them, and that company changes nothing. */

import assert from "node:assert/strict";

import { ADAPTIVE_FLOOR, layerRoles } from "../../engine/layer_plan.ts";
import type { Session } from "../../engine/evaluation/hand_session.ts";
import type { SpanResult, SparseSettings } from "../../engine/span.ts";
import { engineFixture, everyLogprob, logprobsOf, runTogether, withSession } from "../support/engine_fixture.ts";
import { FIXTURES } from "../support/model_directory.ts";

// A trained model of four layers: its attention has a shape.
const fixture = engineFixture({ directory: `${FIXTURES}llama-rope3` }, 4096);

const LAYERS = 4;
const SELECT = [1];
const SPARSE_LAYERS = layerRoles(LAYERS, SELECT).filter((role) => role === "sparse").length;

const PROMPT = Array.from({ length: 300 }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);

function prompted<T>(sparse: SparseSettings, body: (session: Session) => Promise<T>): Promise<T> {
  fixture.engine.calibrate({ selectLayers: SELECT, budget: 64, sparseFrom: 0 });
  const sampling = everyLogprob(fixture.engine.config.vocabSize);
  return withSession(fixture.host, { sampling, sparse }, async (session) => {
    await session.prefill(PROMPT, "none");
    return await body(session);
  });
}

function decoded(sparse: SparseSettings): Promise<SpanResult> {
  return prompted(sparse, (session) => session.decode(77, "sparse"));
}

/** Positions of a set, on average over the sets and the sparse layers. */
function setSize({ rowsRead = NaN }: SpanResult): number {
  return (rowsRead - (LAYERS - SPARSE_LAYERS) * (PROMPT.length + 1)) / SPARSE_LAYERS;
}

const SHAPES = ["kv_head", "query_head", "all_heads"] as const;

for (const heads of SHAPES) {
  Deno.test(`Engine.run() reads the more the higher the coverage, between floor and cap: ${heads}`, async () => {
    const sizes: number[] = [];
    for (const coverage of [1e-6, 0.5, 0.9, 0.97, 1]) {
      sizes.push(setSize(await decoded({ budget: 256, heads, coverage })));
    }
    assert.deepEqual(sizes, [...sizes].sort((a, b) => a - b));
    assert.equal(sizes[0], ADAPTIVE_FLOOR);
    assert.equal(sizes.at(-1), 256);
    assert.ok((sizes[3] ?? 0) > ADAPTIVE_FLOOR && (sizes[3] ?? 0) < 256, `${sizes}`);
  });

  Deno.test(`Engine.run() with a coverage of 1 is the fixed budget, bit for bit, where the windows agree: ${heads}`, async () => {
    for (const budget of [16, 256]) {
      const fixed = await decoded({ budget, heads });
      const adaptive = await decoded({ budget, heads, coverage: 1 });
      assert.deepEqual(logprobsOf(adaptive), logprobsOf(fixed));
      assert.deepEqual([setSize(adaptive), fixed.rowsRead], [budget, undefined]);
    }
  });
}

Deno.test("Engine.run() of an adaptive row within its cap is dense, and counts nothing", async () => {
  const adaptive = await decoded({ budget: 301, heads: "kv_head", coverage: 0.9 });
  const dense = await prompted({ budget: 301, heads: "kv_head" }, (session) => session.decode(77, "dense"));
  assert.deepEqual(logprobsOf(adaptive), logprobsOf(dense));
  assert.equal(adaptive.rowsRead, undefined);
});

Deno.test("Engine.run() reports rows read with every kind of logits", async () => {
  const sparse = { budget: 128, heads: "kv_head", coverage: 0.8 } as const;
  const { rowsRead } = await decoded(sparse);
  await prompted(sparse, async (session) => {
    assert.equal((await session.decode(77, "sparse", "none")).rowsRead, rowsRead);
  });
  await prompted(sparse, async (session) => {
    const span = { kind: "decode", attention: "sparse", tokens: Uint32Array.of(77), next: 9, logits: "all" } as const;
    assert.equal((await session.run(span)).rowsRead, rowsRead);
  });
});

Deno.test("Engine.run() gives an adaptive row the same bits and counts alone and among others", async () => {
  const settings: readonly SparseSettings[] = [
    { budget: 64, heads: "kv_head" },
    { budget: 200, heads: "kv_head", coverage: 0.8 },
    { budget: 100, heads: "kv_head", coverage: 0.95 },
    { budget: 128, heads: "query_head", coverage: 0.8 },
    { budget: 128, heads: "all_heads", coverage: 0.8 },
    { budget: 500, heads: "kv_head" },
  ];
  const alone: SpanResult[] = [];
  for (const sparse of settings) alone.push(await decoded(sparse));
  const sampling = everyLogprob(fixture.engine.config.vocabSize);
  const sessions = settings.map((sparse) => fixture.host.open({ sampling, sparse }));
  for (const session of sessions) await session.prefill(PROMPT, "none");
  const { spans } = await runTogether(
    fixture.host,
    sessions.map((session, i) =>
      session.plan({
        kind: "decode",
        attention: i === settings.length - 1 ? "dense" : "sparse",
        tokens: Uint32Array.of(77),
        logits: i === 2 ? "none" : "last",
      })
    ),
  );
  for (const session of sessions) await session.close();
  for (const [i, expected] of alone.entries()) {
    assert.equal(spans[i]?.rowsRead, expected.rowsRead, JSON.stringify(settings[i]));
    if (i !== 2) assert.deepEqual(logprobsOf(spans[i]), logprobsOf(expected), JSON.stringify(settings[i]));
  }
});
