import assert from "node:assert/strict";
import { fitsAttention, type HeadShape } from "../../../../kernels/attention/kv_pages.ts";
import {
  hardwareTileBytes,
  hardwareTileFor,
  hardwareTileTokens,
} from "../../../../kernels/attention/tile/hardware_tile_plan.ts";

const KIB = 1024;

const LLAMA: HeadShape = { heads: 32, kvHeads: 8, headDim: 128 };

Deno.test("hardwareTileFor() takes deep slices where workgroup memory has room for them", () => {
  const sizesFor = (bytes: number, shape: HeadShape) => {
    const { tileRows, sliceVecs, valueKeys } = hardwareTileFor(bytes, shape) ?? {};
    return [tileRows, sliceVecs, valueKeys];
  };
  assert.deepEqual(sizesFor(48 * KIB, LLAMA), [64, 8, 16]);
  assert.deepEqual(sizesFor(32 * KIB, LLAMA), [64, 2, 4]);
  assert.deepEqual(sizesFor(32 * KIB, { ...LLAMA, headDim: 64 }), [64, 4, 4]);
  assert.deepEqual(sizesFor(48 * KIB, { ...LLAMA, headDim: 256 }), [32, 8, 16]);
  assert.deepEqual(sizesFor(32 * KIB, { ...LLAMA, headDim: 256 }), [32, 4, 8]);
  assert.deepEqual(sizesFor(16 * KIB, LLAMA), [16, 4, 4]);
  assert.equal(hardwareTileFor(8 * KIB, LLAMA), undefined);
});

Deno.test("hardwareTileFor() has a tile with a whole token for all heads that attention takes", () => {
  for (const [bytes, group] of [[16 * KIB, 16], [32 * KIB, 32], [48 * KIB, 32]] as const) {
    for (let headDim = 8; headDim <= 256; headDim += 8) {
      for (let heads = 1; heads <= group; heads++) {
        const shape = { heads, kvHeads: 1, headDim };
        if (!fitsAttention(shape)) continue;
        const tile = hardwareTileFor(bytes, shape);
        assert.ok(tile !== undefined, `heads of ${headDim}, ${bytes} bytes`);
        assert.ok(hardwareTileBytes(tile) <= bytes);
        assert.ok(hardwareTileTokens(tile) >= 1, `${heads} heads of ${headDim}`);
      }
    }
  }
});
