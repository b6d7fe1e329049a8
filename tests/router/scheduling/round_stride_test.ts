/** How long lossless rounds should be, by costs and agreement. */

import assert from "node:assert/strict";

import { Correction } from "../../../router/scheduling/correction.ts";
import { bestRound, expectedTokens, RecentAgreement, type RoundCost } from "../../../router/scheduling/round_stride.ts";

/** As measured: drafts of 6.3 ms, and a verification whose tiles take 4, 8 or 16 rows. */
const TILED: RoundCost = (rows) => (rows - 1) * 6.3 + (rows <= 4 ? 13 : rows <= 8 ? 15 : 19);

/** As without matrix units: each row of a verification costs as much as a step. */
const BY_ROWS: RoundCost = (rows) => (rows - 1) * 10 + rows * 11;

Deno.test("bestRound() makes rounds longer the more drafts agree, and the less a row of a verification costs", () => {
  const best = (costOf: RoundCost) => [0.3, 0.85, 0.975, 0.99, 1].map((agreement) => bestRound(agreement, costOf));
  assert.deepEqual(best(TILED), [2, 4, 8, 16, 16]);
  assert.deepEqual(best(BY_ROWS), [2, 2, 2, 2, 2]);
  assert.equal(bestRound(0.9, () => undefined), undefined);
});

Deno.test("bestRound() is never far from the best stride of all", () => {
  for (const agreement of [0.5, 0.8, 0.9, 0.95, 0.98, 0.99]) {
    const msPerToken = (rows: number) => (TILED(rows) ?? NaN) / expectedTokens(rows, agreement);
    const best = Math.min(...Array.from({ length: 31 }, (_, i) => msPerToken(i + 2)));
    assert.ok(msPerToken(bestRound(agreement, TILED) ?? NaN) < 1.03 * best, `agreement ${agreement}`);
  }
});

Deno.test("RecentAgreement begins at nine of ten, and follows what came of rounds", () => {
  const recent = new RecentAgreement();
  assert.equal(recent.probability, 0.9);
  for (let i = 0; i < 300; i++) recent.record({ checked: 4, agreed: 4 });
  assert.ok(recent.probability > 0.999);
  for (let i = 0; i < 300; i++) recent.record({ checked: 2, agreed: 1 });
  assert.ok(Math.abs(recent.probability - 0.5) < 0.01);
});

Deno.test("Correction makes lossless rounds as long as pays, and keeps the first length while nothing is known", () => {
  const lossless = (costOf: RoundCost, agreed: number, diverges: boolean) => {
    const correction = new Correction({ mode: "lossless", every: "auto", perToken: false }, 0);
    for (let round = 0; round < 60; round++) {
      const checks = Array.from(
        { length: agreed },
        (_, index) => ({ index, token: 1, dense: 1, divergence: undefined }),
      );
      if (diverges) checks.push({ index: agreed, token: 2, dense: 1, divergence: undefined });
      correction.record({ rows: agreed + 1, checks, dropped: 0, isLast: true }, costOf);
    }
    return correction.usage()?.stride;
  };
  const DIVERGES = true;
  assert.deepEqual([lossless(TILED, 7, !DIVERGES), lossless(TILED, 1, DIVERGES)], [16, 2]);
  assert.equal(lossless(() => undefined, 7, !DIVERGES), 4);
});
