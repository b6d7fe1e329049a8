/** Roles of layers, and what a row reads under them. */

import assert from "node:assert/strict";

import { layerRoles, recentOf, rowAttention, rowsRead, sparseLayersAfter } from "../../engine/layer_plan.ts";

Deno.test("layerRoles() is dense up to the first select layer, sparse after it but for the others", () => {
  assert.deepEqual(layerRoles(6, [2, 4]), ["dense", "dense", "select", "sparse", "select", "sparse"]);
  assert.deepEqual(layerRoles(3, [1]), ["dense", "select", "sparse"]);
});

Deno.test("layerRoles() refuses select layers that do not fit", () => {
  for (const layers of [[], [0], [5], [6], [2, 2], [3, 2], [1.5], [-1], [NaN]]) {
    assert.throws(() => layerRoles(6, layers), { name: "EngineError", code: "unsupported_model" }, `${layers}`);
  }
  assert.throws(() => layerRoles(6, [2, 5]), /select layer 5 must be an integer above 2 and below 5$/);
});

Deno.test("rowAttention() is dense as long as the context fits the budget", () => {
  const sparse = { budget: 64, heads: "kv_head" } as const;
  assert.deepEqual([62, 63, 64].map((position) => rowAttention(sparse, position)), ["dense", "dense", "sparse"]);
});

Deno.test("recentOf() is a quarter of the budget, and never nothing", () => {
  assert.deepEqual([16, 19, 256, 3].map((budget) => recentOf({ budget })), [4, 4, 64, 1]);
  assert.deepEqual(
    [16, 100, 4096].map((budget) => recentOf({ budget, coverage: 0.9 })),
    [4, 25, 64],
    "at most 64 of a cap",
  );
});

Deno.test("sparseLayersAfter() counts the sparse layers up to the next that sees everything", () => {
  const roles = layerRoles(8, [1, 4]);
  assert.deepEqual([sparseLayersAfter(roles, 1), sparseLayersAfter(roles, 4)], [2, 3]);
});

Deno.test("rowsRead() counts the budget in sparse layers and the context in the others", () => {
  const roles = layerRoles(6, [2, 4]);
  assert.equal(rowsRead(roles, 64, 999), 4 * 1000 + 2 * 64);
  assert.equal(rowsRead(roles, 64, 9), 60);
});
