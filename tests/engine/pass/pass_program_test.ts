/** Programs: the same bits as the layer loop, and no trace of one step, shape or buffer in the next. */

import assert from "node:assert/strict";

import { ALONE } from "../../../engine/exchange.ts";
import type { HandSpan, Session } from "../../../engine/evaluation/hand_session.ts";
import { PageMap } from "../../../engine/page_map.ts";
import type { SpanResult, SparseSettings } from "../../../engine/span.ts";
import { engineFixture, everyLogprob, runTogether } from "../../support/engine_fixture.ts";
import { Random } from "../../support/random.ts";

// The shape does not matter here, only that there is a layer of each role.
const fixture = engineFixture({ random: "tiny" }, 16384);

const VOCABULARY = 512;
const SAMPLING = { ...everyLogprob(VOCABULARY), temperature: 0.7, seed: 3 };

const SPARSE: readonly SparseSettings[] = [
  { budget: 64, heads: "kv_head" },
  { budget: 64, heads: "query_head" },
  { budget: 120, coverage: 0.9, heads: "all_heads" },
];

function randomTokens(seed: number, count: number): Uint32Array<ArrayBuffer> {
  const random = new Random(seed);
  return random.integers(count, VOCABULARY);
}

/** Has the layer loop record every step, or programs where it can: an exchange that is not `ALONE` may do anything. */
function useSteps(by: "loop" | "program"): void {
  const exchange = by === "program" ? ALONE : { ...ALONE };
  fixture.engine.join({ index: 0, map: new PageMap([fixture.engine.info.kvPages]), exchange });
}

async function inBothWays<T>(body: () => Promise<T>): Promise<[recorded: T, loop: T]> {
  useSteps("loop");
  const loop = await body();
  useSteps("program");
  return [await body(), loop];
}

/** A prompt of that length, then one step for each span of the script. */
async function answers(length: number, sparse: SparseSettings, script: readonly HandSpan[]): Promise<SpanResult[]> {
  const session = fixture.host.open({ sampling: SAMPLING, sparse, promptTokens: length, audited: true });
  await session.prefill(randomTokens(length, length), "none");
  const results: SpanResult[] = [];
  for (const span of script) results.push(await session.run(span));
  await session.close();
  return results.map(({ sequence: _, ...rest }) => ({ sequence: 0, ...rest }));
}

const row = (token: number, attention: "dense" | "sparse"): HandSpan => ({
  kind: "decode",
  attention,
  tokens: Uint32Array.of(token),
  logits: "last",
});

const correction = (from: number, rows: number): HandSpan => ({
  kind: "decode",
  attention: "dense",
  tokens: randomTokens(from, rows),
  from,
  logits: "audit",
});

for (const sparse of SPARSE) {
  // Around the edges of a bucket of 256 KV rows and of a page.
  for (const length of [120, 254, 510]) {
    const name = `${sparse.heads} after ${length} positions`;
    Deno.test(`a program computes the bits of the layer loop: ${name}`, async () => {
      const script = [
        ...[7, 8].map((token) => row(token, "dense")),
        ...[1, 2, 3, 4, 5].map((token) => row(token, "sparse")),
        correction(length + 2, 6),
        row(9, "sparse"),
        row(10, "dense"),
      ];
      const [recorded, loop] = await inBothWays(() => answers(length, sparse, script));
      assert.deepEqual(recorded, loop);
      assert.ok(
        recorded[7]?.audit?.divergences.some((divergence) => divergence > 0),
        "sparse rows differ from dense ones",
      );
    });
  }
}

Deno.test("a program serves steps of several sequences, and others that come in between", async () => {
  const body = async () => {
    const sessions: Session[] = [];
    for (const [i, sparse] of SPARSE.entries()) {
      const session = fixture.host.open({ sampling: { ...SAMPLING, seed: i }, sparse });
      await session.prefill(randomTokens(i, 200 + 40 * i), "none");
      sessions.push(session);
    }
    const results: SpanResult[] = [];
    for (const counts of [3, 1, 2, 3, 2, 1, 3]) {
      const plans = sessions.slice(0, counts).map((session, i) =>
        session.plan(row(i, i % 2 === 0 ? "sparse" : "dense"))
      );
      results.push(...(await runTogether(fixture.host, plans)).spans);
    }
    for (const session of sessions) await session.close();
    return results.map(({ sequence: _, ...rest }) => rest);
  };
  const [recorded, loop] = await inBothWays(body);
  assert.deepEqual(recorded, loop);
});

Deno.test("steps of one shape share a program; a calibration drops all", async () => {
  const { commands } = fixture.engine;
  useSteps("program");
  assert.equal(commands.programs, 0);
  const settings: SparseSettings = { budget: 64, heads: "kv_head" };
  await answers(100, settings, [row(1, "sparse")]);
  const afterOne = commands.programs;
  await answers(100, settings, Array.from({ length: 20 }, (_, i) => row(i, "sparse")));
  assert.equal(commands.programs, afterOne);
  const { roles, selectLayers } = fixture.engine.info;
  assert.ok(roles !== undefined);
  fixture.engine.calibrate({ selectLayers, budget: 64, sparseFrom: 0 });
  assert.equal(commands.programs, 0);
});
