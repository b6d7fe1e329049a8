/** Slots, pages and tokens of open sequences, as steps begin, fail and end. */

import assert from "node:assert/strict";

import { KvSlice, SLOTS } from "../../../engine/kv/kv_slice.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import { PageMap } from "../../../engine/page_map.ts";
import { Sequences } from "../../../engine/kv/sequences.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { open, prefill, step } from "../../support/step_parts.ts";

const fixture = gpuFixture();
const { config } = presetNamed("tiny");
const pages = (...numbers: number[]) => Uint32Array.from(numbers);

async function withSlice(count: number, body: (slice: KvSlice) => Promise<void>): Promise<void> {
  const slice = await KvSlice.allocate(fixture.gpu, config, { pages: count, replicaPages: 0 });
  try {
    await body(slice);
  } finally {
    slice.close();
  }
}

/** The first pages of a slot's table. */
async function tableOf(slice: KvSlice, slot: number, count: number): Promise<number[]> {
  const words = await fixture.words(slice.pageTable);
  return [...words.subarray(slot * slice.maxPages, slot * slice.maxPages + count)];
}

Deno.test("Sequences.begin() writes the pages of prefix and spans into the slot's table, and keeps their tokens", async () => {
  await withSlice(10, async (slice) => {
    const sequences = new Sequences(slice, { index: 0, map: new PageMap([slice.pages]) });
    sequences.begin(step({
      open: [
        open(5, { prefixPages: pages(9, 3) }),
        open(6, { prefixPages: pages(9), prefixTokens: new Uint32Array(64) }),
      ],
      spans: [prefill(5, 128, 70, { newPages: pages(0, 7) })],
    }));
    const [five, six] = [sequences.open.get(5), sequences.open.get(6)];
    assert.deepEqual([five?.physicalPages.length, six?.physicalPages.length], [4, 1]);
    assert.deepEqual([five?.tokens.length, five?.tokens[127], five?.tokens[128]], [198, undefined, 1]);
    assert.deepEqual([six?.tokens.length, six?.tokens[0]], [64, 0]);
    sequences.begin(step({ spans: [prefill(5, 197, 60, { newPages: pages(2) })] }));
    assert.deepEqual(await tableOf(slice, five?.slot ?? NaN, 5), [9, 3, 0, 7, 2]);
    assert.deepEqual(await tableOf(slice, six?.slot ?? NaN, 1), [9]);
  });
});

Deno.test("Sequences.begin() keeps the tokens after a span that goes back", async () => {
  await withSlice(2, (slice) => {
    const sequences = new Sequences(slice, { index: 0, map: new PageMap([slice.pages]) });
    sequences.begin(step({ open: [open(1)], spans: [prefill(1, 0, 6, { newPages: pages(0) })] }));
    sequences.begin(step({ spans: [prefill(1, 2, 2, { tokens: pages(40, 41) })] }));
    assert.deepEqual(sequences.open.get(1)?.tokens, [1, 2, 40, 41, 5, 6]);
    return Promise.resolve();
  });
});

Deno.test("Sequences.undo() takes back slots and pages, Sequences.end() frees what was released", async () => {
  await withSlice(4, async (slice) => {
    const sequences = new Sequences(slice, { index: 0, map: new PageMap([slice.pages]) });
    sequences.begin(step({ open: [open(1)], spans: [prefill(1, 0, 60, { newPages: pages(0) })] }));
    const slot = sequences.open.get(1)?.slot;
    const failing = step({
      open: [open(2)],
      release: [1],
      spans: [prefill(1, 60, 10, { newPages: pages(1) }), prefill(2, 0, 1, { newPages: pages(2) })],
    });
    sequences.begin(failing);
    assert.deepEqual([...sequences.open.keys()], [1, 2]);
    sequences.undo(failing);
    assert.deepEqual([...sequences.open.keys()], [1]);
    assert.equal(sequences.open.get(1)?.physicalPages.length, 1);
    sequences.begin(step({ spans: [prefill(1, 60, 10, { newPages: pages(3) })] }));
    assert.deepEqual(await tableOf(slice, slot ?? NaN, 2), [0, 3]);
    sequences.end(step({ release: [1] }));
    assert.equal(sequences.open.size, 0);
    const everyone = Array.from({ length: SLOTS }, (_, i) => open(10 + i));
    sequences.begin(step({ open: everyone }));
    assert.equal(new Set([...sequences.open.values()].map((state) => state.slot)).size, SLOTS);
    assert.throws(() => sequences.begin(step({ open: [open(9)] })), { code: "kv_exhausted" });
  });
});

Deno.test("Sequences.begin() keeps a worker's own pages of a group, counted from its own first", async () => {
  const map = new PageMap([2, 4]);
  // Places 0 to 5 belong to workers 1, 0, 1, 1, 0, 1.
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((page) => map.owner(0, page)), [1, 0, 1, 1, 0, 1]);
  await withSlice(4, async (slice) => {
    const sequences = new Sequences(slice, { index: 1, map });
    const state = () => sequences.open.get(8);
    sequences.begin(step({ open: [open(8, { prefixPages: pages(5, 0, 3) })] }));
    sequences.begin(step({ spans: [prefill(8, 192, 192, { newPages: pages(2, 1, 4) })] }));
    assert.equal(state()?.physicalPages.length, 6);
    assert.deepEqual(await tableOf(slice, state()?.slot ?? NaN, 4), [3, 1, 0, 2]);
  });
});
