import assert from "node:assert/strict";
import { isRagged, rowPlanOf, rowProductCut, rowTileFor } from "../../../kernels/products/row_tile.ts";

const shapes = [16, 8].map((n) => ({ m: 16, n, k: 16, input: "f16", result: "f32" } as const));
const LARGE = { matrix: shapes, subgroupSize: 32, maxWorkgroupBytes: 49_152, maxInvocations: 1024 };

function cutOf(info = LARGE) {
  return rowProductCut(info) ?? assert.fail("no matrix units");
}

function tileOf(rows: number, weightRows: number, info = LARGE): { rows: number; outputs: number } {
  const cut = cutOf(info);
  const tile = rowTileFor(cut, { rows, weightRows });
  return { rows: tile.rows, outputs: rowPlanOf({ ...cut, tile }).outputs };
}

Deno.test("rowProductCut() takes the instruction with the fewest columns", () => {
  assert.equal(rowProductCut(LARGE)?.shape.n, 8);
  assert.equal(rowProductCut({ ...LARGE, matrix: shapes.slice(0, 1) })?.shape.n, 16);
  assert.equal(rowProductCut({ ...LARGE, matrix: [] }), undefined);
});

Deno.test("rowTileFor() takes the narrowest tile that holds the rows, and the widest when none does", () => {
  const rows = [1, 2, 8, 9, 17, 33, 64, 100].map((rows) => tileOf(rows, 4096).rows);
  assert.deepEqual(rows, [1, 8, 8, 16, 32, 64, 64, 64]);
});

Deno.test("rowTileFor() gives a workgroup more outputs where the weight has rows for many workgroups", () => {
  assert.deepEqual([4096, 6144].map((weightRows) => tileOf(32, weightRows).outputs), [32, 64]);
});

Deno.test("rowTileFor() asks for more ahead where there are few workgroups", () => {
  const cut = cutOf();
  const ahead = [4096, 28_672].map((weightRows) => rowTileFor(cut, { rows: 1, weightRows }).ahead);
  assert.deepEqual(ahead, [4, 2]);
});

Deno.test("rowTileFor() keeps within the adapter's workgroup memory", () => {
  assert.deepEqual([1, 64].map((rows) => tileOf(rows, 28672, { ...LARGE, maxWorkgroupBytes: 16_384 }).rows), [1, 16]);
  assert.equal(rowProductCut({ ...LARGE, maxWorkgroupBytes: 4096 }), undefined);
});

Deno.test("rowPlanOf() stages one row where there is one, and room for the sums of all shares", () => {
  const cut = cutOf();
  const [single, many] = [1, 64].map((rows) => {
    const tile = rowTileFor(cut, { rows, weightRows: 4096 });
    return { tile, ...rowPlanOf({ ...cut, tile }) };
  });
  assert.deepEqual([single?.stagedRows, many?.stagedRows], [1, 64]);
  // Columns beside the one row are read from what follows it: the last one ends within.
  assert.ok(single !== undefined && single.stagedInputs >= single.elements + 7 * single.inputStride);
  assert.ok(many !== undefined && many.stagedWeights * 4 >= many.tile.beside * cut.shares * many.outputs * 8);
});

Deno.test("isRagged() tells whether all slices that are asked for together exist", () => {
  const cut = cutOf();
  const tile = rowTileFor(cut, { rows: 1, weightRows: 4096 });
  assert.deepEqual([4096, 14_336, 11_008, 104].map((cols) => isRagged({ ...cut, tile }, cols)), [
    false,
    false,
    true,
    true,
  ]);
});
