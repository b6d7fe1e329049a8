/** Memory of the KV slice, and that it is given back. */

import assert from "node:assert/strict";

import { bindablePages, kvBytesPerToken, KvSlice } from "../../../engine/kv/kv_slice.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";

const fixture = gpuFixture();
const { config } = presetNamed("tiny");

Deno.test("KvSlice.allocate() takes the bytes that it says, for all layers", async () => {
  assert.equal(kvBytesPerToken(config), 3 * 2 * 2 * 32 * 2);
  const before = fixture.gpu.allocatedBytes;
  const slice = await KvSlice.allocate(fixture.gpu, config, { pages: 10, replicaPages: 0 });
  assert.deepEqual([slice.pages, slice.maxPages, slice.layers.length], [10, 64, 3]);
  const bytes = slice.layers.reduce((sum, { k, v }) => sum + k.byteLength + v.byteLength, 0);
  assert.equal(bytes, 10 * 64 * kvBytesPerToken(config));
  slice.close();
  assert.equal(fixture.gpu.allocatedBytes, before);
});

Deno.test("KvSlice.allocate() refuses what one binding cannot hold", async () => {
  const bound = bindablePages(fixture.gpu, config);
  for (const count of [0, -1, NaN, bound + 1]) {
    await assert.rejects(KvSlice.allocate(fixture.gpu, config, { pages: count, replicaPages: 0 }), {
      code: "kv_exhausted",
      message: `Cannot allocate the KV slice: ${count} pages are not within 1 and ${bound}`,
    });
  }
});

Deno.test("KvSlice.writeTable() writes after what a slot has, and nowhere else", async () => {
  const slice = await KvSlice.allocate(fixture.gpu, config, { pages: 10, replicaPages: 0 });
  slice.writeTable(1, 0, Uint32Array.of(7, 8));
  slice.writeTable(1, 2, Uint32Array.of(9));
  slice.writeTable(1, 3, new Uint32Array(0));
  const words = await fixture.words(slice.pageTable);
  const written = [...words.entries()].filter(([, page]) => page !== 0);
  assert.deepEqual(written, [[slice.maxPages, 7], [slice.maxPages + 1, 8], [slice.maxPages + 2, 9]]);
  slice.close();
});
