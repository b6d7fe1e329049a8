/** Memory of the KV slice and its page tables, how large it becomes, and the sequences that hold its slots. */

import assert from "node:assert/strict";

import { allocateSlice } from "../../engine/kv_capacity.ts";
import { bindablePages, kvBytesPerToken, KvSlice, SLOTS } from "../../engine/kv_slice.ts";
import { presetNamed } from "../../engine/presets.ts";
import { Sequences } from "../../engine/sequences.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { open, prefill, step } from "../support/step_parts.ts";

const fixture = gpuFixture();
const { config } = presetNamed("tiny");
const pages = (...numbers: number[]) => Uint32Array.from(numbers);

async function withSlice(count: number, body: (slice: KvSlice) => Promise<void>): Promise<void> {
  const before = fixture.gpu.allocatedBytes;
  const slice = await KvSlice.allocate(fixture.gpu, config, count);
  try {
    await body(slice);
  } finally {
    slice.close();
  }
  assert.equal(fixture.gpu.allocatedBytes, before);
}

/** The first pages of a slot's table. */
async function tableOf(slice: KvSlice, slot: number, count: number): Promise<number[]> {
  const words = await fixture.words(slice.pageTable);
  return [...words.subarray(slot * slice.maxPages, slot * slice.maxPages + count)];
}

Deno.test("KvSlice.allocate() takes the bytes that it says, for all layers", async () => {
  assert.equal(kvBytesPerToken(config), 3 * 2 * 2 * 32 * 2);
  await withSlice(10, (slice) => {
    assert.deepEqual([slice.pages, slice.maxPages, slice.layers.length], [10, 64, 3]);
    const bytes = slice.layers.reduce((sum, { k, v }) => sum + k.byteLength + v.byteLength, 0);
    assert.equal(bytes, 10 * 64 * kvBytesPerToken(config));
    return Promise.resolve();
  });
});

Deno.test("KvSlice.allocate() refuses what one binding cannot hold", async () => {
  const bound = bindablePages(fixture.gpu, config);
  for (const count of [0, -1, NaN, bound + 1]) {
    await assert.rejects(KvSlice.allocate(fixture.gpu, config, count), {
      code: "kv_exhausted",
      message: `Cannot allocate the KV slice: ${count} pages are not within 1 and ${bound}`,
    });
  }
});

Deno.test("allocateSlice() rounds up to pages, and takes no more than is of use when it may choose", async () => {
  const slices = [await allocateSlice(fixture.gpu, config, 65), await allocateSlice(fixture.gpu, config, "auto")];
  const [asked, chosen] = slices.map((slice) => slice.pages);
  for (const slice of slices) slice.close();
  assert.equal(asked, 2);
  assert.ok(chosen !== undefined && chosen >= 1 && chosen <= 16 * 64, `${chosen} pages`);
});

Deno.test("allocateSlice() refuses more than a machine without a GPU has left", async () => {
  // As many layers as make one that the binding would hold too large for any machine.
  const vast = { ...config, layers: 1e6 };
  if (!fixture.gpu.info.software) return;
  await assert.rejects(allocateSlice(fixture.gpu, vast, 65536), {
    code: "kv_exhausted",
    message: /^Cannot allocate a KV slice of 65536 tokens: its 15625\.0 GiB do not fit into the \d+\.\d GiB that this/,
  });
});

Deno.test("Sequences.begin() writes the pages of prefix and spans into the slot's table, and keeps their tokens", async () => {
  await withSlice(10, async (slice) => {
    const sequences = new Sequences(slice);
    sequences.begin(step({
      open: [
        open(5, { prefixPages: pages(9, 3) }),
        open(6, { prefixPages: pages(9), prefixTokens: new Uint32Array(64) }),
      ],
      spans: [prefill(5, 128, 70, { newPages: pages(0, 7) })],
    }));
    const [five, six] = [sequences.open.get(5), sequences.open.get(6)];
    assert.deepEqual([five?.pages, six?.pages], [4, 1]);
    assert.deepEqual([five?.tokens.length, five?.tokens[127], five?.tokens[128]], [198, undefined, 1]);
    assert.deepEqual([six?.tokens.length, six?.tokens[0]], [64, 0]);
    sequences.begin(step({ spans: [prefill(5, 197, 60, { newPages: pages(2) })] }));
    assert.deepEqual(await tableOf(slice, five?.slot ?? NaN, 5), [9, 3, 0, 7, 2]);
    assert.deepEqual(await tableOf(slice, six?.slot ?? NaN, 1), [9]);
  });
});

Deno.test("Sequences.begin() keeps the tokens behind a span that goes back", async () => {
  await withSlice(2, (slice) => {
    const sequences = new Sequences(slice);
    sequences.begin(step({ open: [open(1)], spans: [prefill(1, 0, 6, { newPages: pages(0) })] }));
    sequences.begin(step({ spans: [prefill(1, 2, 2, { tokens: pages(40, 41) })] }));
    assert.deepEqual(sequences.open.get(1)?.tokens, [1, 2, 40, 41, 5, 6]);
    return Promise.resolve();
  });
});

Deno.test("Sequences.undo() takes back slots and pages, Sequences.end() frees what was released", async () => {
  await withSlice(4, async (slice) => {
    const sequences = new Sequences(slice);
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
    assert.equal(sequences.open.get(1)?.pages, 1);
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
