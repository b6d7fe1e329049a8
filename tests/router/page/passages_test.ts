/** What stands out is what a set of heads reads and need not; what is near the end is read for being near. */

import assert from "node:assert/strict";

import { mostRead } from "../../../router/page/tide/passages.ts";
import { Recording } from "../../../router/page/tide/recording.ts";
import { Random } from "../../support/random.ts";

const PROMPT = 4000;
const RECENT = 64;

/** A recording of rows that read sinks, recent ones, some at random, more of them near the end, and a needle. */
function recordingOf(needle: number | undefined): Recording {
  const recording = new Recording("answer");
  const layout = { promptTokens: PROMPT, pageTokens: 64, owners: [0, 1], layers: 12, selectLayers: [2, 6] };
  recording.take({ kind: "layout", ...layout, budget: 256, sinks: 4, recent: RECENT });
  const random = new Random(7);
  for (let i = 0; i < 20; i++) {
    const position = PROMPT + i;
    const set = (found?: number) => {
      const chosen = new Set([0, 1, 2, 3]);
      for (let recent = 0; recent < RECENT; recent++) chosen.add(position - recent);
      for (let j = 0; j < 90; j++) chosen.add(random.integer(PROMPT));
      for (let j = 0; j < 90; j++) chosen.add(PROMPT - 1 - random.integer(600));
      for (let j = 0; found !== undefined && j < 7; j++) chosen.add(found + random.integer(14));
      return [...chosen].sort((a, b) => a - b);
    };
    const layers = [{ layer: 2, sets: [set(), set()] }, { layer: 6, sets: [set(), set(needle)] }];
    recording.take({ kind: "row", position, rows: 1, attention: "sparse", layers });
  }
  return recording;
}

Deno.test("mostRead() finds a needle that one of four sets reads, wherever it lies, and nothing where there is none", () => {
  for (const needle of [300, 2000, 3800]) {
    const [first] = mostRead(recordingOf(needle), 3);
    assert.ok(first !== undefined && Math.abs(first.from - needle) <= 6, `${first?.from} for ${needle}`);
    assert.ok(first.share > 0.25, `${first.share}`);
  }
  assert.deepEqual(mostRead(recordingOf(undefined), 3), []);
});

Deno.test("Recording counts what was chosen by lane, and knows texts, workers and forced positions", () => {
  const recording = recordingOf(undefined);
  assert.equal(recording.context, PROMPT + 20);
  assert.deepEqual(recording.lanes.map(({ layer, set }) => [layer, set]), [[2, 0], [2, 1], [6, 0], [6, 1]]);
  assert.deepEqual(recording.lanes.map(({ counts }) => counts[0]), [20, 20, 20, 20]);
  recording.append("Hel", 1);
  recording.append("lo", 2);
  recording.describe(Array.from({ length: PROMPT }, (_, i) => `${i} `));
  assert.equal(recording.text(PROMPT - 1, PROMPT + 9), `${PROMPT - 1} Hello`);
  assert.deepEqual([recording.workerOf(63), recording.workerOf(64), recording.workers], [0, 1, 2]);
  const row = { position: 1000 };
  assert.deepEqual([3, 4, 936, 937].map((position) => recording.isForced(position, row)), [true, false, false, true]);
});
