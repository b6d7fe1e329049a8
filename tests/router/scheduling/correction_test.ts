/** Strides that follow the agreement, and the accounts of what was found. */

import assert from "node:assert/strict";
import { type Check, Correction } from "../../../router/scheduling/correction.ts";
import type { CorrectionRequest } from "../../../router/scheduling/generation.ts";

function correction(mode: CorrectionRequest["mode"], every: number | "auto" = "auto"): Correction {
  return new Correction({ mode, every, perToken: false });
}

function check(index: number, dense = 7, divergence = 0.5): Check {
  return { index, token: 7, dense, divergence };
}

/** Takes in a correction of which so many checks agree, and one more does not. @returns the stride afterwards */
function take(of: Correction, agreed: number, diverges: "diverges" | "agrees" = "agrees"): number | undefined {
  const checks = Array.from({ length: agreed }, (_, i) => check(i));
  if (diverges === "diverges") checks.push(check(agreed, 8));
  of.took({ rows: checks.length + 1, checks, dropped: 0 });
  return of.usage()?.stride;
}

Deno.test("Correction lengthens its stride while everything agrees and shortens it after a divergence, within bounds", () => {
  const lossless = correction("lossless");
  const grown = Array.from({ length: 3 }, () => take(lossless, 3));
  assert.deepEqual(grown, [6, 8, 8]);
  const shrunk = Array.from({ length: 3 }, () => take(lossless, 1, "diverges"));
  assert.deepEqual(shrunk, [4, 2, 2]);
  const audit = correction("audit");
  assert.equal(take(audit, 0, "diverges"), 4);
  assert.equal(Array.from({ length: 9 }, () => take(audit, 3)).at(-1), 64);
});

Deno.test("Correction keeps a stride that was asked for, and says when it is due", () => {
  const fixed = correction("lossless", 5);
  assert.deepEqual([4, 5, 6].map((rows) => fixed.isDue(rows)), [false, true, true]);
  assert.equal(take(fixed, 4), 5);
  assert.equal(take(fixed, 0, "diverges"), 5);
  assert.ok(correction("refresh", 1).isDue(1), "every token is dense");
});

Deno.test("Correction leaves it to the planner when a refresh on its own account is made, and none when it is off", () => {
  const [refresh, off] = [correction("refresh"), correction("off")];
  assert.deepEqual([15, 16, 999].map((rows) => refresh.isWelcome(rows)), [false, true, true]);
  assert.ok(!refresh.isDue(100_000));
  assert.deepEqual([off.isWelcome(999), off.isDue(999), off.audits, off.usage()], [false, false, false, undefined]);
  assert.ok(!correction("refresh", 32).isWelcome(16));
});

Deno.test("Correction counts what was checked, and knows the first divergence", () => {
  const audit = new Correction({ mode: "audit", every: "auto", perToken: true });
  audit.took({ rows: 3, checks: [check(1), { ...check(2), divergence: undefined }], dropped: 0 });
  const report = audit.took({ rows: 3, checks: [check(3, 9), check(4, 9, 1.5)], dropped: 0 });
  assert.deepEqual(report, {
    mode: "audit",
    rows: 3,
    checked: 2,
    agreed: 0,
    divergence: 2,
    measured: 2,
    dropped: 0,
  });
  const usage = audit.usage();
  assert.deepEqual([usage?.corrections, usage?.rows, usage?.rollbacks], [2, 6, 0]);
  const { tokens, ...counts } = usage?.audit ?? assert.fail();
  assert.deepEqual(counts, { checked: 4, agreed: 2, divergence: 2.5, measured: 3, firstDivergence: 3 });
  assert.deepEqual(tokens?.map(({ index, dense }) => [index, dense]), [[1, 7], [2, 7], [3, 9], [4, 9]]);
  assert.equal(correction("audit").usage()?.audit?.tokens, undefined);
});

Deno.test("Correction counts roll-backs and the drafts that they cost", () => {
  const lossless = correction("lossless", 4);
  lossless.took({ rows: 4, checks: [check(1), check(2, 9)], dropped: 2 });
  lossless.took({ rows: 4, checks: [check(3), check(4), check(5)], dropped: 0 });
  const { rollbacks, dropped, audit } = lossless.usage() ?? assert.fail();
  assert.deepEqual([rollbacks, dropped, audit?.checked, audit?.agreed], [1, 2, 5, 4]);
});
