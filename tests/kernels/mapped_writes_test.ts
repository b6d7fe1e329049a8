/** Data through mapped buffers, on a device that has them; elsewhere, and where none is free, the queue writes. */

import assert from "node:assert/strict";
import { MappedWrites } from "../../kernels/mapped_writes.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { until } from "../support/until.ts";

const fixture = gpuFixture();

const WORDS = 70_000;

Deno.test("MappedWrites brings large data into its place, again and again, in buffers that grow", async () => {
  const { gpu } = fixture;
  const writes = new MappedWrites(gpu.device, { settlesByTurns: gpu.traits.settlesByTurns, mapsInPlace: true });
  const tensor = fixture.zeros("u32", [2 * WORDS + 8]);
  const bring = (first: number, count: number, value: number) =>
    writes.write(tensor, 4 * first, new Uint8Array(new Uint32Array(count).fill(value).buffer));
  try {
    // More than there are buffers, so that they are used again, or the queue has to write.
    for (let i = 0; i < 30; i++) {
      bring(8, WORDS, 100 + i);
      if (i % 10 === 9) await gpu.read([]);
    }
    const words = await gpu.readU32({ tensor });
    assert.deepEqual([words[7], words[8], words[WORDS + 7], words[WORDS + 8]], [0, 129, 129, 0]);
    await gpu.read([]);
    // A small buffer makes room for a larger one as soon as the GPU has read it.
    await until(() => bring(0, 2 * WORDS, 7) === 8 * WORDS);
    assert.deepEqual([...new Set((await gpu.readU32({ tensor })).subarray(0, 2 * WORDS))], [7]);
    assert.equal(bring(0, 4, 9), 0, "little is left to the queue");
    assert.deepEqual([...(await gpu.readU32({ tensor })).subarray(3, 5)], [9, 7]);
  } finally {
    await writes.close();
  }
});

Deno.test("MappedWrites brings what no buffer holds through several, or the queue where these are taken", async () => {
  const { gpu } = fixture;
  const writes = new MappedWrites(gpu.device, { settlesByTurns: gpu.traits.settlesByTurns, mapsInPlace: true });
  const words = 5 << 20;
  const tensor = fixture.zeros("u32", [words + 4]);
  const taken = Array.from({ length: 7 }, (_, i) => {
    const data = new Uint32Array(words).map((_, at) => at + i);
    return writes.write(tensor, 8, new Uint8Array(data.buffer));
  });
  assert.equal(taken[0], 4 * words);
  const read = await gpu.readU32({ tensor });
  assert.deepEqual([read[1], read[2], read[(2 << 20) + 2], read[words + 1], read[words + 2]], [
    0,
    6,
    (2 << 20) + 6,
    words + 5,
    0,
  ]);
  await writes.close();
});

Deno.test("MappedWrites takes nothing where a map is a copy of its own", async () => {
  const { device } = fixture.gpu;
  const writes = new MappedWrites(device, { settlesByTurns: false, mapsInPlace: false });
  const tensor = fixture.zeros("u32", [WORDS]);
  assert.equal(writes.write(tensor, 0, new Uint8Array(4 * WORDS).fill(1)), 0);
  assert.equal((await fixture.gpu.readU32({ tensor })).at(-1), 0x01010101);
  await writes.close();
});
