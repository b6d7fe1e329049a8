/** Which batches of a step are under way together, and what waits for what, on passes that only say when they end. */

import assert from "node:assert/strict";
import { PageMap } from "../../../engine/page_map.ts";
import { planBatches } from "../../../engine/pass/batch_plan.ts";
import { PassProgress } from "../../../engine/pass/pass_progress.ts";
import { runBatches } from "../../../engine/pass/run_batches.ts";
import type { RowBatch } from "../../../engine/row_batch.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import type { Span } from "../../../engine/span.ts";
import { GREEDY } from "../../../engine/evaluation/hand_session.ts";

const MAP = new PageMap([128, 64]);
const { config } = presetNamed("tiny");

/** The batches of prompts, and of single rows that decode, as one of two workers plans them. */
function batchesOf(lengths: readonly number[], { index = 0, isWhole = true } = {}): readonly RowBatch[] {
  const sparse = { budget: 64, heads: "kv_head" } as const;
  const pages = { prefixPages: new Uint32Array(), prefixTokens: new Uint32Array() };
  const open = { sampling: GREEDY, sparse, promptTokens: 0, pageOffset: 0, audited: false, ...pages };
  const spans = lengths.map((length, sequence): Span => ({
    ...(length === 1 ? { kind: "decode", attention: "dense" } : { kind: "prefill" }),
    sequence,
    from: 0,
    tokens: new Uint32Array(length),
    logits: "none",
    newPages: new Uint32Array(),
  }));
  const sequences = new Map(
    spans.map(({ sequence }) => [sequence, { slot: 0, open: { ...open, sequence }, tokens: [], physicalPages: [] }]),
  );
  const share = { map: MAP, index };
  return planBatches(spans, {
    sequences,
    window: undefined,
    share,
    maxScores: 1 << 20,
    whole: new Set(isWhole ? sequences.keys() : []),
  });
}

/** Runs batches on one of two workers; `work` says what each does, layer by layer where it is given the progress. */
async function play(
  batches: readonly RowBatch[],
  { index = 0, work }: {
    readonly index?: number;
    readonly work: (batch: number, progress: PassProgress, earlier: readonly PassProgress[]) => Promise<void>;
  },
): Promise<string[]> {
  const events: string[] = [];
  const begin =
    (what: string) => async (batch: number, given: Parameters<Parameters<typeof runBatches>[2]["run"]>[1]) => {
      events.push(`${what} ${batch} after ${given.earlier.length}`);
      await work(batch, given.progress, given.earlier);
    };
  await runBatches({ config, share: { map: MAP, index } }, batches, {
    run: begin("run"),
    receive: begin("receive"),
    end: (batch) => Promise.resolve(void events.push(`end ${batch}`)),
  });
  return events;
}

const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

Deno.test("planBatches() deals chunks of about the same length to the workers in turn, and no worker has tables of another's", () => {
  const dealt = (lengths: readonly number[]) => batchesOf(lengths).map(({ rows, computer }) => [rows, computer]);
  assert.deepEqual(dealt([600]), [[320, 0], [280, 1]]);
  assert.deepEqual(dealt([4096]), [[2048, 0], [2048, 1]]);
  assert.deepEqual(dealt([4097]), [[1088, 0], [1088, 1], [1088, 0], [833, 1]]);
  assert.deepEqual(dealt([200, 200]), [[256, 0], [144, 1]]);
  for (const index of [0, 1]) {
    for (const { computer, table, ranges, rows } of batchesOf([600], { index })) {
      assert.equal(table.some((word) => word > 0), computer === index);
      assert.deepEqual(ranges, [{ first: 0, rows, owner: computer }]);
    }
  }
  const [whole] = batchesOf([600], { isWhole: false });
  assert.deepEqual([whole?.rows, whole?.computer], [600, undefined]);
  assert.ok((whole?.ranges ?? []).length > 2, "rows belong to the owners of their pages");
});

Deno.test("runBatches() computes own chunks while it takes in the other's, and ends them in order", async () => {
  assert.deepEqual(await play(batchesOf([8192]), { work: soon }), [
    ...["run 0 after 0", "receive 1 after 1"],
    ...["end 0", "run 2 after 2", "end 1", "receive 3 after 3", "end 2", "end 3"],
  ]);
  const apart = await play(batchesOf([300, 148]), { index: 1, work: soon });
  assert.deepEqual(apart.slice(0, 2), ["receive 0 after 0", "run 1 after 1"]);
});

Deno.test("runBatches() has a chunk of one prompt wait for no chunk of another", async () => {
  const events = await play(batchesOf([2048, 2048]), { work: soon });
  assert.deepEqual(events.slice(0, 2), ["run 0 after 0", "receive 1 after 0"]);
});

Deno.test("runBatches() leaves rows that decode until the prompts beside them are over, on every worker", async () => {
  for (const [index, own, other, row] of [[0, 0, 1, "run"], [1, 1, 0, "receive"]] as const) {
    const events = await play(batchesOf([1, 600]), { index, work: soon });
    assert.deepEqual(events.slice(0, 2).toSorted(), [`receive ${other} after ${other}`, `run ${own} after ${own}`]);
    assert.deepEqual(events.slice(2), ["end 0", "end 1", `${row} 2 after 0`, "end 2"]);
  }
});

Deno.test("runBatches() runs batches that are not dealt one after the other", async () => {
  const events = await play(batchesOf([2048, 2048], { isWhole: false }), { work: soon });
  assert.deepEqual(events, ["run 0 after 0", "end 0", "run 1 after 0", "end 1"]);
});

Deno.test("runBatches() throws what one has thrown when the others have settled, also those that waited for it", async () => {
  const failure = new Error("the peer is gone");
  for (const failing of [0, 1]) {
    const settled: number[] = [];
    const work = async (batch: number, _: PassProgress, earlier: readonly PassProgress[]) => {
      if (batch === failing) throw failure;
      await soon();
      settled.push(batch);
      for (const each of earlier) await each.reached(0);
    };
    await assert.rejects(play(batchesOf([600]), { work }), failure);
    assert.deepEqual(settled, [1 - failing]);
  }
});

Deno.test("PassProgress.reached() waits for a layer, and fails with the pass", async () => {
  const progress = new PassProgress(2);
  progress.reach(0);
  await progress.reached(0);
  const failure = new Error("lost");
  progress.fail(failure);
  await progress.reached(0);
  await assert.rejects(progress.reached(1), failure);
});
