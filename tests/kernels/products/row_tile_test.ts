import assert from "node:assert/strict";
import { outputsOf, rowProductCut, rowsOf, rowTileFor } from "../../../kernels/products/row_tile.ts";

const shapes = [16, 8].map((n) => ({ m: 16, n, k: 16, input: "f16", result: "f32" } as const));
const LARGE = { matrix: shapes, subgroupSize: 32, maxWorkgroupBytes: 49_152, maxInvocations: 1024 };

function tileOf(rows: number, weightRows: number, info = LARGE): { rows: number; outputs: number } {
  const cut = rowProductCut(info);
  if (cut === undefined) throw new Error("Cannot cut: no matrix units");
  const tile = rowTileFor(cut, { rows, weightRows });
  return { rows: rowsOf(cut.shape, tile), outputs: outputsOf(cut.shape, tile) };
}

Deno.test("rowProductCut() takes the instruction with the fewest columns", () => {
  assert.equal(rowProductCut(LARGE)?.shape.n, 8);
  assert.equal(rowProductCut({ ...LARGE, matrix: shapes.slice(0, 1) })?.shape.n, 16);
  assert.equal(rowProductCut({ ...LARGE, matrix: [] }), undefined);
});

Deno.test("rowTileFor() takes the narrowest tile that holds the rows, and the widest when none does", () => {
  assert.deepEqual([1, 4, 5, 9, 17, 33, 64, 100].map((rows) => tileOf(rows, 4096).rows), [4, 4, 8, 16, 32, 64, 64, 64]);
});

Deno.test("rowTileFor() gives a workgroup more outputs where the weight has rows for many workgroups", () => {
  assert.deepEqual([4096, 6144].map((weightRows) => tileOf(32, weightRows).outputs), [32, 64]);
});

Deno.test("rowTileFor() keeps within the adapter's workgroup memory", () => {
  assert.deepEqual([1, 32].map((rows) => tileOf(rows, 28672, { ...LARGE, maxWorkgroupBytes: 32_768 })), [
    { rows: 8, outputs: 32 },
    { rows: 32, outputs: 32 },
  ]);
  assert.equal(rowProductCut({ ...LARGE, maxWorkgroupBytes: 4096 }), undefined);
});
