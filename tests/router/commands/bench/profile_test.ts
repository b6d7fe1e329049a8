/** What a profile makes of timed passes: parts that add up, and work counted by operation. No GPU. */

import assert from "node:assert/strict";
import { PRESETS } from "../../../../engine/model/presets.ts";
import { mixedLength } from "../../../../router/commands/bench/batches.ts";
import { benchFile, comparison } from "../../../../router/commands/bench/compare.ts";
import { workOf } from "../../../../router/commands/bench/kernel_work.ts";
import { budgetOf, kernelFigures } from "../../../../router/commands/bench/profile.ts";
import { idleShareOf } from "../../../../router/commands/bench/step_passes.ts";
import type { Dispatch } from "../../../../kernels/pipeline.ts";
import type { TimedDispatch, TimedPass } from "../../../../kernels/timestamps.ts";

const config = PRESETS["llama-3-8b"]?.config;
assert.ok(config !== undefined);
const STEP = { config, from: 999, rows: 1, budget: 512 };

/** A dispatch whose tensors are f16, as far as anything reads them. */
function dispatched(kernel: string, params: Record<string, number>): TimedDispatch {
  const tensors = [{ dtype: "f16" }] as unknown as Dispatch["tensors"];
  return { kernel, dispatch: { tensors, params, groups: [1, 1, 1] } };
}

const QKV = dispatched("team_product f16 64:1×4", { rows: 1, firstInput: 0, partRows: 6144, eights: 512 });

Deno.test("workOf() counts weights once a dispatch, visible or chosen KV rows, and nothing for what it does not know", () => {
  assert.deepEqual(workOf(QKV, STEP), {
    name: "team_product 1×6144×4096 f16",
    bytes: 6144 * 4096 * 2 + (4096 + 6144) * 4,
    flop: 2 * 6144 * 4096,
  });
  const wide = dispatched("team_product f16 64:4×4", { rows: 12, firstInput: 8, partRows: 64, eights: 1 });
  assert.equal(workOf(wide, STEP).flop, 2 * 4 * 64 * 8);
  const kvBytes = 8 * 128 * 2 * 2;
  const attention = (params: Record<string, number>) =>
    workOf(dispatched("attention 32,8", { rows: 1, ...params }), STEP);
  assert.deepEqual(attention({}), {
    name: "attention 1 row dense",
    bytes: 1000 * kvBytes,
    flop: 4 * 1000 * 32 * 128,
  });
  assert.equal(attention({ scoreStride: 1024 }).name, "attention 1 row dense, scores kept");
  assert.equal(attention({ sets: 8 }).bytes, 512 * kvBytes);
  assert.deepEqual(workOf(dispatched("top_k 1,2", { rows: 1 }), STEP), { name: "top_k" });
});

/** Two passes: 10 to 30 and 50 to 60 microseconds. */
const WHOLE: TimedPass[] = [
  { startNs: 10_000, endNs: 30_000, dispatches: [QKV, QKV] },
  { startNs: 50_000, endNs: 60_000, dispatches: [QKV] },
];

/** The same three dispatches in passes of their own, 8 microseconds each. */
const SINGLE: TimedPass[] = [0, 1, 2].map((i) => ({ startNs: i * 9000, endNs: i * 9000 + 8000, dispatches: [QKV] }));

Deno.test("idleShareOf() is what lies between passes", () => {
  assert.equal(idleShareOf(WHOLE), 0.4);
  assert.equal(idleShareOf([]), 0);
});

Deno.test("budgetOf() leaves nothing of a step out", () => {
  const { stepMs, ...parts } = budgetOf(0.2, [WHOLE, WHOLE], [SINGLE]);
  const rounded = Object.fromEntries(Object.entries(parts).map(([name, ms]) => [name, Number(ms.toFixed(6))]));
  assert.deepEqual(rounded, { kernelsMs: 0.024, betweenDispatchesMs: 0.006, betweenPassesMs: 0.02, hostMs: 0.15 });
  assert.equal(Object.values(rounded).reduce((sum, ms) => sum + ms, 0).toFixed(6), stepMs.toFixed(6));
});

Deno.test("kernelFigures() adds up dispatches alike, and takes the share of the ceiling that binds them", () => {
  const ceilings = { readGigabytesPerSecond: 10_000, fmaTeraflopPerSecond: 100 };
  const [figures, ...others] = kernelFigures([SINGLE, SINGLE], STEP, ceilings);
  assert.deepEqual(others, []);
  const bytes = workOf(QKV, STEP).bytes ?? NaN;
  assert.equal(figures?.count, 3);
  assert.equal(figures?.msPerStep, 0.024);
  assert.ok(Math.abs((figures?.gigabytesPerSecond ?? NaN) - bytes / 8000) < 1e-6);
  assert.ok(Math.abs((figures?.ceilingShare ?? NaN) - bytes / 8000 / 10_000) < 1e-9);
});

Deno.test("mixedLength() spreads lengths between a quarter and the whole in every batch", () => {
  for (const batch of [8, 32, 64]) {
    const lengths = Array.from({ length: batch }, (_, i) => mixedLength(i, 2048));
    assert.ok(lengths.every((length) => length >= 512 && length <= 2048));
    assert.ok(Math.abs(lengths.reduce((sum, length) => sum + length, 0) / batch - 1280) < 90);
    assert.equal(new Set(lengths).size, batch);
  }
});

Deno.test("comparison() takes what both runs measured, and says where they differ", () => {
  const about = { date: "2026-01-01", model: "tiny", parameters: 1, budget: 64, fill: "prefill" } as const;
  const ms = { step: 4, gpu: 3, encode: 0.5, readBack: 0.07, wire: 0.4 };
  const run = (tokensPerSecond: number, contexts: readonly number[], budget: number) => {
    const figures = contexts.map((context) => ({
      context,
      decode: [{ attention: "dense" as const, tokensPerSecond, ms, meanMs: 4 }],
    }));
    const workers = [{ adapter: "GPU", kvTokens: 640, place: null }];
    return benchFile({
      ...about,
      budget,
      groups: [{ workers, kvTokens: 640, longestContext: 640, figures, skipped: [] }],
    });
  };
  const { table, notes } = comparison(run(100, [64, 128], 64), run(150, [128, 256], 32));
  assert.deepEqual(table.rows, [["1 worker, 128: decode dense tokens/s", "100.0", "150.0", "1.500"]]);
  assert.match(notes.join("\n"), /1 figures that both measured, 1 that only this one did, 1 only that one/);
  assert.match(notes.join("\n"), /budget: 64 before, 32 now/);
});
