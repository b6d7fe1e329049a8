import assert from "node:assert/strict";
import { rowProductCut } from "../../../kernels/products/row_tile.ts";
import { shareSumsOf, shareTileFor } from "../../../kernels/products/share_tile.ts";

const BYTES = { maxWorkgroupBytes: 49_152 };
const cut = rowProductCut({
  matrix: [{ m: 16, n: 8, k: 16, input: "f16", result: "f32" }],
  subgroupSize: 32,
  maxInvocations: 1024,
  ...BYTES,
}) ?? assert.fail("no cut");

const columnsFor = (rows: number, weightRows = 4096, bytes = BYTES) =>
  shareTileFor(cut, { rows, weightRows, ...bytes })?.columns;

Deno.test("shareTileFor() splits k over workgroups for more rows than read the weight at speed", () => {
  assert.deepEqual([1, 32, 33, 64].map((rows) => columnsFor(rows)), [undefined, undefined, 64, 64]);
});

Deno.test("shareTileFor() keeps within workgroup memory, and leaves heads whose sums would take too much", () => {
  assert.equal(columnsFor(64, 4096, { maxWorkgroupBytes: 8192 }), undefined);
  assert.equal(columnsFor(64, 128_256), undefined);
});

Deno.test("shareSumsOf() counts whole tiles", () => {
  const tile = { outputs: 128, columns: 64, subgroupOutputs: 64, subgroupColumns: 32, turns: 2 };
  const { columnBlocks, outputBlocks, floats } = shareSumsOf({ tile, shares: 4 }, { rows: 33, weightRows: 130 });
  assert.deepEqual([columnBlocks, outputBlocks, floats], [2, 2, 4 * 2 * 64 * 2 * 128]);
});
