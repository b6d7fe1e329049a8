/** The sparse oracle on keys whose best positions are known, and on a model where nothing may be lost. */

import assert from "node:assert/strict";

import { layerRoles, SINKS } from "../../engine/layer_plan.ts";
import type { SetShape } from "../../engine/span.ts";
import { FIXTURES, readFixture } from "../support/model_directory.ts";
import { selectPooled, TidalDecode } from "./tidal_decode.ts";
import { ReferenceCache, ReferenceModel } from "./transformer.ts";

const BUDGET = 16;
const POSITION = 99;
const ROLES = layerRoles(3, [1]);

/** The sets that three-layer roles choose for 4 query heads on 2 KV heads: [query head][position]. */
function sets(heads: SetShape): number[][] {
  const cache = new ReferenceCache(3);
  for (let p = 0; p <= POSITION; p++) {
    // KV head 0 likes positions 50 and 60 in its two dimensions; KV head 1 likes 70.
    const keys = [Float64Array.of(p === 50 ? 9 : 0, p === 60 ? 8 : 0), Float64Array.of(p === 70 ? 9 : 0, 0)];
    for (const rows of cache.keys) rows.push(keys);
  }
  const tidal = new TidalDecode(ROLES, 2, { budget: BUDGET, heads });
  const queries = [Float64Array.of(1, 0), Float64Array.of(0, 1), Float64Array.of(1, 0), Float64Array.of(1, 0)];
  const see = (layer: number, head: number) => [...tidal.visible({ layer, head, position: POSITION, queries }, cache)];
  for (const layer of [0, 1]) {
    for (let head = 0; head < 4; head++) assert.equal(see(layer, head).length, POSITION + 1);
  }
  return [0, 1, 2, 3].map((head) => see(2, head));
}

/** Sinks, newest quarter of the budget, and then what the heads like; ties go to the lowest positions. */
const FORCED = [0, 1, 2, 3, 96, 97, 98, 99];

function withLiked(liked: readonly number[]): number[] {
  const filler = Array.from({ length: BUDGET - FORCED.length - liked.length }, (_, i) => SINKS + i);
  return [...FORCED, ...liked, ...filler].sort((a, b) => a - b);
}

Deno.test("TidalDecode chooses one set per KV head from its pooled query heads", () => {
  assert.deepEqual(sets("kv_head"), [[50, 60], [50, 60], [70], [70]].map(withLiked));
});

Deno.test("TidalDecode chooses one set for all heads", () => {
  assert.deepEqual(sets("all_heads"), Array(4).fill(withLiked([50, 60, 70])));
});

Deno.test("TidalDecode chooses per query head by raw score, with nothing forced in", () => {
  const first = Array.from({ length: BUDGET - 1 }, (_, p) => p);
  assert.deepEqual(sets("query_head"), [[...first, 50], [...first, 60], [...first, 70], [...first, 70]]);
});

Deno.test("selectPooled() takes the whole budget, forced positions included", () => {
  const pooled = Array.from({ length: 40 }, (_, p) => p / 1000);
  assert.deepEqual(selectPooled(pooled, { budget: 16 }), [0, 1, 2, 3, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39]);
});

Deno.test("TidalDecode within the budget is dense, beyond it is not", async () => {
  const model = await ReferenceModel.load(`${FIXTURES}llama`);
  const { prompts } = await readFixture<{ prompts: { ids: number[] }[] }>("llama/expected.json");
  const ids = prompts[1]?.ids ?? [];
  assert.equal(ids.length, 33);
  const last = (budget: number | undefined) => {
    const cache = model.newCache();
    model.forward(ids.slice(0, -1), cache);
    const visible = budget === undefined
      ? undefined
      : new TidalDecode(ROLES, model.config.kvHeads, { budget, heads: "kv_head" }).visible;
    return model.forward(ids.slice(-1), cache, visible)[0];
  };
  assert.deepEqual(last(33), last(undefined));
  assert.notDeepEqual(last(32), last(undefined));
});
