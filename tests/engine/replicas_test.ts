/** Sparse layers that read copies of other workers' rows: the same answers, no exchange, and no copy that is out of date. */

import assert from "node:assert/strict";
import { type Session, SessionHost } from "../../engine/evaluation/hand_session.ts";
import { replicaRoom } from "../../engine/replica_plan.ts";
import type { SetShape, SparseSettings } from "../../engine/span.ts";
import { everyLogprob, logprobsOf, runTogether } from "../support/engine_fixture.ts";
import { enginePool } from "../support/engine_pool.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { FIXTURES } from "../support/model_directory.ts";

const MODEL = { directory: `${FIXTURES}/llama-rope3` };
const pool = enginePool(MODEL, [1024, 512, 1024, 256]);
const SHAPES: readonly SetShape[] = ["kv_head", "query_head", "all_heads"];

function prompt(length: number, salt = 0): number[] {
  return Array.from({ length }, (_, i) => 8 + (i * 37 + (i >> 3) * 11 + salt) % 500);
}

async function withGroup(
  options: Parameters<typeof MemoryGroup.of>[2] & { readonly slices?: readonly number[] },
  use: (group: MemoryGroup, host: SessionHost) => Promise<void>,
): Promise<void> {
  const { slices = [1024, 512], ...joining } = options;
  // Without copies of whole sequences, so that replicas are all that is there.
  const group = MemoryGroup.of(pool, slices, { ...joining, alike: false });
  for (const engine of group.engines) engine.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 });
  try {
    await use(group, new SessionHost(group, group.map));
  } finally {
    await group.close();
  }
}

function opened(host: SessionHost, heads: SetShape, coverage?: number): Session {
  const sparse = { budget: coverage === undefined ? 32 : 120, heads, ...(coverage !== undefined && { coverage }) };
  return host.open({ sampling: everyLogprob(512), sparse, pageOffset: 1 });
}

/** Decodes rows sparsely. @returns logits after each, to the bit */
async function decode(session: Session, tokens: readonly number[]): Promise<Float64Array[]> {
  const logits = [];
  for (const token of tokens) logits.push(logprobsOf(await session.decode(token, "sparse")));
  return logits;
}

Deno.test("Sparse layers of a group exchange nothing, and answer as they do when they exchange states", async () => {
  for (const slices of [[1024, 512], [1024, 512, 256]]) {
    const answers: Float64Array[][] = [];
    for (const sparseExchange of ["rows", "states"] as const) {
      await withGroup({ slices, sparseExchange }, async (group, host) => {
        for (const [heads, coverage] of [...SHAPES.map((shape) => [shape] as const), ["kv_head", 0.9] as const]) {
          const session = opened(host, heads, coverage);
          await session.prefill(prompt(200), "none");
          group.count.states = 0;
          answers.push(await decode(session, prompt(4, 5)));
          const { layers, roles = [] } = group.engines[0]?.info ?? { layers: 0 };
          const byStates = sparseExchange === "states";
          const exchanging = byStates ? layers : roles.filter((role) => role !== "sparse").length;
          assert.equal(group.count.states, 4 * exchanging * slices.length);
          await session.close();
        }
        assert.equal(group.count.replicas > 0, sparseExchange === "rows");
      });
    }
    const [rows = [], states = []] = [answers.slice(0, 4).flat(), answers.slice(4).flat()];
    for (const [i, row] of rows.entries()) {
      const difference = Math.max(...row.map((value, token) => Math.abs(value - (states[i]?.[token] ?? NaN))));
      assert.ok(difference < 0.02, `row ${i}: ${difference}`);
    }
  }
});

for (const heads of SHAPES) {
  Deno.test(`A copy is dropped when its row is rewritten: rollback, correction, prefill, ${heads}`, async () => {
    await withGroup({ sparseExchange: "rows" }, async (_, host) => {
      const [wrong, right] = [prompt(20, 3), prompt(20, 9)];
      const rewritten = opened(host, heads);
      await rewritten.prefill(prompt(200), "none");
      await decode(rewritten, wrong);
      // Back to the end of the prompt: 10 rows in one dense span, as a correction writes them, and 10 that are prefilled.
      const span = { kind: "decode", attention: "dense", logits: "none" } as const;
      await rewritten.run({ ...span, tokens: Uint32Array.from(right.slice(0, 10)), from: 200 });
      await rewritten.run({ kind: "prefill", tokens: Uint32Array.from(right.slice(10)), from: 210, logits: "none" });
      const clean = opened(host, heads);
      await clean.prefill(prompt(200), "none");
      await clean.run({ ...span, tokens: Uint32Array.from(right.slice(0, 10)), from: 200 });
      await clean.run({ kind: "prefill", tokens: Uint32Array.from(right.slice(10)), from: 210, logits: "none" });
      assert.deepEqual(await decode(rewritten, prompt(6, 2)), await decode(clean, prompt(6, 2)));
      await rewritten.close();
      await clean.close();
    });
  });
}

Deno.test("Sequences that take each other's pages for copies answer as they do alone, to the bit", async () => {
  // Room for the copies of two of them.
  await withGroup({ sparseExchange: "rows", replicaPages: 4 }, async (group, host) => {
    const alone: Float64Array[][] = [];
    for (const salt of [1, 2, 3]) {
      const session = opened(host, "kv_head");
      await session.prefill(prompt(200, salt), "none");
      alone.push(await decode(session, prompt(6, salt)));
      await session.close();
    }
    const sent = group.count.replicas;
    const together = [1, 2, 3].map((salt) => ({
      salt,
      session: opened(host, "kv_head"),
      logits: [] as Float64Array[],
    }));
    for (const { session, salt } of together) await session.prefill(prompt(200, salt), "none");
    for (let i = 0; i < 6; i++) {
      for (const { session, salt, logits } of together) {
        logits.push(...await decode(session, prompt(6, salt).slice(i, i + 1)));
      }
    }
    assert.deepEqual(together.map(({ logits }) => logits), alone);
    assert.ok(group.count.replicas - sent >= sent, "what was taken away is sent again");
    for (const { session } of together) await session.close();
  });
});

Deno.test("replicaRoom() follows from opening and shape alone, and leaves what is too large to states", () => {
  const config = { heads: 32, kvHeads: 8, headDim: 128 };
  const bounds = { config, pages: 1024, exchange: "rows" } as const;
  assert.deepEqual(replicaRoom({ sparse: { budget: 512, heads: "kv_head" } }, bounds), { ring: 128, store: 3968 });
  assert.deepEqual(replicaRoom({ sparse: { budget: 64, heads: "kv_head" } }, bounds), { ring: 64, store: 512 });
  const small = { budget: 64, heads: "kv_head" } as const;
  assert.equal(replicaRoom({ sparse: small, sparseExchange: "rows" }, { ...bounds, exchange: "states" }), undefined);
  const auto = { ...bounds, exchange: "auto" } as const;
  assert.deepEqual(replicaRoom({ sparse: small, sparseExchange: "rows" }, auto), { ring: 64, store: 512 });
  assert.equal(replicaRoom({ sparse: small, sparseExchange: "states" }, auto), undefined);
  assert.equal(replicaRoom({ sparse: small }, auto), undefined);
  assert.equal(replicaRoom({ sparse: { budget: 512, heads: "query_head" } }, { ...bounds, pages: 16 }), undefined);
});

Deno.test("A set larger than what one worker holds is read whole: several rows and sets, fixed and adaptive", async () => {
  // Of 400 positions each worker holds about 200, so that its own candidates take less room than the sets of up to 300.
  const settings: readonly SparseSettings[] = [
    { budget: 300, heads: "kv_head" },
    { budget: 300, heads: "kv_head", coverage: 0.999 },
    { budget: 300, heads: "query_head", coverage: 1 },
  ];
  const answers: Float64Array[][] = [];
  for (const sparseExchange of ["rows", "states"] as const) {
    await withGroup({ slices: [1024, 1024], sparseExchange }, async (group, host) => {
      const sessions = settings.map((sparse) => host.open({ sampling: everyLogprob(512), sparse }));
      for (const session of sessions) await session.prefill(prompt(400), "none");
      group.count.states = 0;
      for (let i = 0; i < 3; i++) {
        const plans = sessions.map((session) =>
          session.plan({ kind: "decode", attention: "sparse", tokens: Uint32Array.of(9 + i), logits: "last" })
        );
        const { spans } = await runTogether(host, plans);
        answers.push(spans.map(logprobsOf));
      }
      assert.equal(group.count.replicas > 0, sparseExchange === "rows");
      for (const session of sessions) await session.close();
    });
  }
  const [rows = [], states = []] = [answers.slice(0, 3).flat(), answers.slice(3).flat()];
  for (const [i, row] of rows.entries()) {
    const difference = Math.max(...row.map((value, token) => Math.abs(value - (states[i]?.[token] ?? NaN))));
    assert.ok(difference < 0.02, `row ${i}: ${difference}`);
  }
});
