/** Sparse decoding against the f64 oracle, word by word as the algorithm says, for all shapes of sets. */

import assert from "node:assert/strict";

import { layerRoles } from "../../../engine/layer_plan.ts";
import type { SparseSettings } from "../../../engine/span.ts";
import { TidalDecode } from "../../reference/tidal_decode.ts";
import { ReferenceModel, type Visible } from "../../reference/transformer.ts";
import { engineFixture, everyLogprob, logprobsOf, withSession } from "../../support/engine_fixture.ts";
import { FIXTURES, readFixture } from "../../support/model_directory.ts";

const DIRECTORY = `${FIXTURES}llama-rope3`;
const fixture = engineFixture({ directory: DIRECTORY }, 1024);

const { prompts } = await readFixture<{ prompts: { ids: number[]; greedy: number[] }[] }>("llama-rope3/expected.json");
const PROMPT = prompts[2]?.ids ?? [];
const DECODED = (prompts[2]?.greedy ?? []).slice(0, 6);

/** Dense layer 0, select layer 1, sparse layers 2 and 3, and the same with a second select layer. */
const PLANS = [[1], [1, 2]];

/**
 * With the oracle's cache rounded as the engine's is, what differs is f32 against f64, and here and there the last bit of
 * an f16 that either rounds the other way. The largest measured is 0.0045.
 */
const TOLERANCE = 0.01;

/** What sparsity changes at least: else the comparison would say nothing about the selection. */
const SPARSITY = 0.1;

const model = await ReferenceModel.load(DIRECTORY);
const { layers, kvHeads, vocabSize } = model.config;
const cache = model.newCache();
model.forward(PROMPT, cache, inHalves(tidal([1], { budget: 1000, heads: "kv_head" })));

function tidal(selectLayers: readonly number[], settings: SparseSettings): Visible {
  return new TidalDecode(layerRoles(layers, selectLayers), kvHeads, settings).visible;
}

/** Rounds keys and values to f16 when they come into the cache: else positions at the edge of a budget would change. */
function inHalves(visible: Visible): Visible {
  return (row, held) => {
    for (const rows of row.head === 0 ? [held.keys, held.values] : []) {
      for (const vector of rows[row.layer]?.[row.position] ?? []) vector.set(vector.map(Math.f16round));
    }
    return visible(row, held);
  };
}

/** Log-probabilities of each decoded row. */
function oracle(selectLayers: readonly number[], settings: SparseSettings): Float64Array[] {
  cache.truncate(PROMPT.length);
  return model.forward(DECODED, cache, inHalves(tidal(selectLayers, settings))).map((logits) => {
    const top = Math.max(...logits);
    const lse = top + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
    return logits.map((logit) => logit - lse);
  });
}

function difference(a: Float64Array, b: Float64Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? NaN))), 0);
}

const dense = oracle([1], { budget: 1000, heads: "kv_head" });

/** Fixed budgets, and one that is the cap of adaptive sets. */
const BOUNDS = [{ budget: 16 }, { budget: 32 }, { budget: 110, coverage: 0.93 }];

for (const heads of ["kv_head", "query_head", "all_heads"] as const) {
  for (const bounds of BOUNDS) {
    Deno.test(`forward() decodes sparsely as the oracle does: ${heads}, ${JSON.stringify(bounds)}`, async () => {
      for (const selectLayers of PLANS) {
        const sparse = { ...bounds, heads };
        const expected = oracle(selectLayers, sparse);
        fixture.engine.calibrate({ selectLayers, budget: bounds.budget, sparseFrom: 0 });
        await withSession(
          fixture.host,
          { sampling: everyLogprob(vocabSize), sparse },
          async (session) => {
            await session.prefill(PROMPT, "none");
            for (const [i, token] of DECODED.entries()) {
              const given = logprobsOf(await session.decode(token, "sparse"));
              const row = expected[i] ?? new Float64Array();
              const off = difference(given, row);
              assert.ok(off <= TOLERANCE, `{${selectLayers}}, row ${i}: off by ${off}`);
              const sparsity = difference(row, dense[i] ?? new Float64Array());
              assert.ok(sparsity > SPARSITY, `{${selectLayers}}, row ${i}: ${sparsity} from dense`);
            }
          },
        );
      }
    });
  }
}
