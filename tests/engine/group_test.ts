import assert from "node:assert/strict";
import { ADAPTIVE_FLOOR } from "../../engine/layer_plan.ts";
import { GREEDY, SessionHost } from "../../engine/evaluation/hand_session.ts";
import type { SetShape } from "../../engine/span.ts";
import { engineFixture, runTogether } from "../support/engine_fixture.ts";
import { enginePool } from "../support/engine_pool.ts";
import { gateCases } from "../support/gate_cases.ts";
import { kvOf, relativeRms } from "../support/kv_difference.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { FIXTURES } from "../support/model_directory.ts";

const MODEL = { directory: `${FIXTURES}/llama-rope3` };
const CALIBRATION = { selectLayers: [1], budget: 64, sparseFrom: 0 };

/** Slices of groups: even, uneven, and one so small that it owns few pages. */
const GROUPS = [[1024], [1024, 1024], [1024, 512], [1024, 512, 256]];

const pool = enginePool(MODEL, [1024, 1024, 512, 256]);
/** What groups are compared with. */
const one = engineFixture(MODEL, 1024);

function prompt(length: number): number[] {
  return Array.from({ length }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);
}

/** Decoded after a prompt. */
const ROWS = 3;

/** Where the pages of a sequence begin: at either worker for rows that attend densely. */
function offsetsOf(heads: SetShape | undefined): readonly number[] {
  return gateCases(heads === undefined ? [0, 1] : [heads === "query_head" ? 0 : 1], [0, 1]);
}

/** Log-probabilities of all tokens, and the tokens drawn, of a prompt and a few decoded rows. */
async function answer(
  host: SessionHost,
  { length, sparse, pageOffset = 0 }: {
    length: number;
    sparse?: { budget: number; heads: SetShape };
    pageOffset?: number;
  },
): Promise<{ tokens: number[]; logprobs: Float64Array[] }> {
  const sampling = { ...GREEDY, topLogprobs: 512 };
  const session = host.open({ sampling, pageOffset, ...(sparse && { sparse }) });
  const tokens: number[] = [];
  const logprobs: Float64Array[] = [];
  let result = await session.prefill(prompt(length));
  for (let i = 0; i < ROWS; i++) {
    const row = new Float64Array(512);
    for (const { token, logprob } of result.logprobs?.top ?? []) row[token] = logprob;
    logprobs.push(row);
    tokens.push(result.token ?? -1);
    // The same tokens for every group: only the arithmetic is compared.
    result = await session.decode(prompt(length + i + 1).at(-1) ?? 0, sparse === undefined ? "dense" : "sparse");
  }
  await session.close();
  return { tokens, logprobs };
}

function largestDifference(a: readonly Float64Array[], b: readonly Float64Array[]): number {
  return Math.max(...a.flatMap((row, i) => [...row].map((value, j) => Math.abs(value - (b[i]?.[j] ?? NaN)))));
}

Deno.test("A group gives the logits of one engine: prompts of every size, dense and sparse", async (t) => {
  one.engine.calibrate(CALIBRATION);
  // What one engine answers does not depend on the group that it is compared with.
  const known = new Map<string, Promise<Awaited<ReturnType<typeof answer>>>>();
  const answerOfOne = (request: Omit<Parameters<typeof answer>[1], "pageOffset">) => {
    const key = JSON.stringify(request);
    const found = known.get(key) ?? answer(one.host, request);
    known.set(key, found);
    return found;
  };
  for (const slices of GROUPS) {
    // One of them exchanges everything.
    const group = MemoryGroup.of(pool, slices, { alike: slices !== GROUPS[2] });
    for (const engine of group.engines) engine.calibrate(CALIBRATION);
    try {
      for (const length of [5, 130, 400]) {
        for (const heads of [undefined, "kv_head", "query_head", "all_heads"] as const) {
          if (length < 400 && heads !== undefined && (length < 100 || heads !== "kv_head")) continue;
          const sparse = heads && { budget: 64, heads };
          for (const pageOffset of slices.length > 1 && length === 400 ? offsetsOf(heads) : [0]) {
            const name = `${slices.join("+")} tokens, prompt of ${length}, ${heads ?? "dense"}, offset ${pageOffset}`;
            await t.step(name, async () => {
              const request = { length, ...(sparse && { sparse }) };
              const expected = await answerOfOne(request);
              const given = await answer(new SessionHost(group, group.map), { ...request, pageOffset });
              assert.ok(largestDifference(given.logprobs, expected.logprobs) < 0.02);
              assert.deepEqual(given.tokens, expected.tokens);
            });
          }
        }
      }
    } finally {
      await group.close();
    }
  }
});

Deno.test("A group chooses the positions that one worker chooses, whatever the slices", async () => {
  const chosen: { layer: number; position: number; lists: readonly Uint32Array[] }[][] = [];
  for (const slices of GROUPS) {
    const group = MemoryGroup.of(pool, slices, { alike: false });
    for (const engine of group.engines) engine.calibrate(CALIBRATION);
    try {
      await answer(new SessionHost(group, group.map), { length: 400, sparse: { budget: 64, heads: "kv_head" } });
      chosen.push([...group.count.chosen]);
      if (slices.length === 1) continue;
      assert.ok(group.count.queries > 0, "the prompt was split");
      assert.equal(group.count.silent, 0, "every worker holds something");
      await answer(new SessionHost(group, group.map), { length: 5 });
      assert.ok(group.count.silent > 0, "who holds nothing of a short prompt is silent");
    } finally {
      await group.close();
    }
  }
  const [alone, ...groups] = chosen;
  assert.equal(alone?.length, ROWS);
  for (const group of groups) {
    for (const [i, { layer, position, lists }] of group.entries()) {
      assert.deepEqual([layer, position], [alone?.[i]?.layer, alone?.[i]?.position]);
      for (const [list, positions] of lists.entries()) {
        const expected = new Set(alone?.[i]?.lists[list]);
        const strangers = [...positions].filter((each) => !expected.has(each));
        assert.equal(positions.length, 64);
        // Last bits of the scores differ between groups: a tie at the edge of the budget may fall either way.
        assert.ok(strangers.length <= 1, `${strangers} at position ${position}`);
      }
    }
  }
});

Deno.test("A group chooses adaptive sets as one worker does, and reports as much read", async () => {
  const sparse = { budget: 300, heads: "kv_head", coverage: 0.9 } as const;
  const read = async (host: SessionHost): Promise<number[]> => {
    const session = host.open({ sparse });
    await session.prefill(prompt(400), "none");
    const rows: number[] = [];
    for (let i = 0; i < 6; i++) {
      rows.push((await session.decode(prompt(401 + i).at(-1) ?? 0, "sparse")).rowsRead ?? NaN);
    }
    await session.close();
    return rows;
  };
  one.engine.calibrate(CALIBRATION);
  const alone = await read(one.host);
  let expected: MemoryGroup["count"]["chosen"] | undefined;
  for (const slices of GROUPS) {
    const readBy = async (copies: { readonly alike: boolean }) => {
      const group = MemoryGroup.of(pool, slices, copies);
      for (const engine of group.engines) engine.calibrate(CALIBRATION);
      const rows = await read(new SessionHost(group, group.map)).finally(() => group.close());
      return { rows, chosen: group.count.chosen };
    };
    const { rows, chosen } = await readBy({ alike: false });
    // With copies the lead chooses alone.
    if (slices.length > 1) assert.deepEqual(await readBy({ alike: true }), { rows, chosen: [] });
    expected ??= chosen;
    assert.equal(chosen.length, 6);
    for (const [i, { lists }] of chosen.entries()) {
      const { sets: sizes, strangers } = compared(expected[i]?.lists ?? [], lists);
      assert.ok(sizes.every((size) => size > ADAPTIVE_FLOOR && size < 300), `${sizes}: neither floor nor cap binds`);
      // At the edge of the coverage a last bit may decide for one position more or less, and for which.
      assert.ok(strangers <= 2 * lists.length, `${slices}: ${strangers} positions differ`);
      const heads = lists.length;
      const own = 2 * 401 + 2 * i + 2 * sizes.reduce((sum, size) => sum + size, 0) / heads;
      assert.equal(rows[i], own);
      assert.ok(Math.abs(own - (alone[i] ?? NaN)) <= 4, `${own} rows, alone ${alone[i]}`);
    }
  }
});

Deno.test("A group counts what an adaptive row read apart from fixed rows of other batches", async () => {
  const group = await MemoryGroup.open(MODEL, [4096, 4096]);
  for (const engine of group.engines) engine.calibrate(CALIBRATION);
  const host = new SessionHost(group, group.map);
  const row = { kind: "decode", attention: "sparse", tokens: Uint32Array.of(7), logits: "last" } as const;
  try {
    const read: (number | undefined)[] = [];
    // They fill the first batch.
    for (const fixedRows of [0, 64]) {
      const adaptive = host.open({ sparse: { budget: 200, heads: "kv_head", coverage: 0.8 } });
      await adaptive.prefill(prompt(300), "none");
      const settings = { sparse: { budget: 16, heads: "kv_head" } } as const;
      const fixed = Array.from({ length: fixedRows }, (_, i) => host.open({ ...settings, pageOffset: i % 2 }));
      const prefill = { kind: "prefill", tokens: Uint32Array.from(prompt(20)), logits: "none" } as const;
      await runTogether(host, fixed.map((session) => session.plan(prefill)));
      const { spans } = await runTogether(host, [...fixed, adaptive].map((session) => session.plan(row)));
      read.push(spans.at(-1)?.rowsRead);
      assert.equal(spans.filter(({ rowsRead }) => rowsRead !== undefined).length, 1);
      for (const session of [...fixed, adaptive]) await session.close();
    }
    assert.ok(read[0] !== undefined);
    assert.equal(read[1], read[0]);
  } finally {
    await group.close();
  }
});

/** Sizes of lists, and in how many positions they are not those expected. */
function compared(
  expected: readonly Uint32Array[],
  given: readonly Uint32Array[],
): { sets: readonly number[]; strangers: number } {
  const strangers = given.map((list, i) => new Set(list).symmetricDifference(new Set(expected[i])).size);
  return { sets: given.map(({ length }) => length), strangers: strangers.reduce((sum, count) => sum + count, 0) };
}

Deno.test("A group keeps the keys and values of one engine, each row on one worker, within 1e-3 rms", async () => {
  const alone = one.host.open();
  await alone.prefill(prompt(400));
  await alone.decode(9);
  for (const slices of GROUPS.slice(1)) {
    const group = MemoryGroup.of(pool, slices);
    try {
      const shared = new SessionHost(group, group.map).open({ pageOffset: 1 });
      await shared.prefill(prompt(400));
      await shared.decode(9);
      for (let layer = 0; layer < one.engine.config.layers; layer++) {
        const expected = await kvOf([one.engine], alone.sequence, layer);
        const given = await kvOf(group.engines, shared.sequence, layer);
        assert.deepEqual([given.size, expected.size], [802, 802]);
        const difference = relativeRms(expected, given);
        assert.ok(difference < 1e-3, `layer ${layer}: ${difference}`);
      }
      await assert.rejects(group.engines[0]?.readKvRows(99, 0) ?? Promise.resolve(), { code: "invalid_step" });
    } finally {
      await group.close();
    }
  }
  await alone.close();
});
