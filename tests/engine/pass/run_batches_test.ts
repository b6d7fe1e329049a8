/** Which batches of a step are under way together, on passes that only say when they end. */

import assert from "node:assert/strict";
import { PageCopies } from "../../../engine/kv/page_copies.ts";
import { PageMap } from "../../../engine/page_map.ts";
import { planBatches } from "../../../engine/pass/batch_plan.ts";
import type { KeyCopies } from "../../../engine/pass/key_copies.ts";
import { PassProgress } from "../../../engine/pass/pass_progress.ts";
import { runBatches } from "../../../engine/pass/run_batches.ts";
import type { RowBatch } from "../../../engine/row_batch.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import type { Span } from "../../../engine/span.ts";
import { GREEDY } from "../../../engine/evaluation/hand_session.ts";

const MAP = new PageMap([128, 128]);
const SHARE = { map: MAP, index: 0 };
const COPIED = { maxPages: 1 } as KeyCopies;

/** The batches of one prompt. */
function batchesOf(rows: number): readonly RowBatch[] {
  const sparse = { budget: 64, heads: "kv_head" } as const;
  const open = { sequence: 1, sampling: GREEDY, sparse, promptTokens: 0, pageOffset: 0, audited: false };
  const state = { slot: 0, open: { ...open, prefixPages: new Uint32Array(), prefixTokens: new Uint32Array() } };
  const span: Span = {
    kind: "prefill",
    sequence: 1,
    from: 0,
    tokens: new Uint32Array(rows),
    logits: "none",
    newPages: new Uint32Array(),
  };
  const sequences = new Map([[1, {
    ...state,
    tokens: [],
    physicalPages: Array.from({ length: 256 }, (_, page) => page),
  }]]);
  return planBatches([span], { sequences, window: undefined, share: SHARE, maxScores: 1 << 20 } as never);
}

/** Runs batches whose keys travel; `run` says what each does. */
async function play(rows: number, pages: number, run: (index: number) => Promise<void>): Promise<string[]> {
  const { config } = presetNamed("tiny");
  const copies = new PageCopies(SHARE, Array.from({ length: pages }, (_, page) => page));
  const events: string[] = [];
  const batches = batchesOf(rows);
  await runBatches({ config, replicas: { copies } as never }, batches, {
    begin: (index, beside) => {
      const batch = batches[index];
      assert.ok(batch);
      const keyCopies = copies.extend(batch.pieces) ? COPIED : undefined;
      events.push(`${index} begins beside ${beside.length}`);
      return { pass: { batch, keyCopies, progress: new PassProgress(1) }, run: () => run(index) };
    },
    end: (pass) => Promise.resolve(void events.push(`${batches.indexOf(pass.batch)} ends`)),
  });
  return events;
}

const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

Deno.test("runBatches() has up to four batches under way where keys travel, and ends them in order", async () => {
  assert.equal(batchesOf(255 + 256).length, 1, "halves would be too short to be shared out");
  assert.deepEqual(batchesOf(600).map(({ rows }) => rows), [300, 300]);
  assert.deepEqual(batchesOf(2047).map(({ rows }) => rows), [1024, 1023]);
  assert.deepEqual(batchesOf(2048).map(({ rows }) => rows), [1024, 1024]);
  assert.deepEqual(batchesOf(8195).map(({ rows }) => rows), [1639, 1639, 1639, 1639, 1639]);
  assert.deepEqual(await play(8195, 200, soon), [
    ...[0, 1, 2, 3].map((index) => `${index} begins beside ${index}`),
    "0 ends",
    "4 begins beside 3",
    ...[1, 2, 3, 4].map((index) => `${index} ends`),
  ]);
});

Deno.test("runBatches() runs them one by one where there is no room for copies", async () => {
  assert.deepEqual(await play(600, 1, soon), ["0 begins beside 0", "0 ends", "1 begins beside 0", "1 ends"]);
});

Deno.test("runBatches() throws what one of two has thrown when the other has settled, and ends neither after it", async () => {
  const failure = new Error("the peer is gone");
  for (const failing of [0, 1]) {
    const settled: number[] = [];
    const run = async (index: number) => {
      if (index === failing) throw failure;
      await soon();
      settled.push(index);
    };
    await assert.rejects(play(600, 64, run), failure);
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
