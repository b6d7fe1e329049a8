/** Strides that follow the agreement, and the accounts of what was found. */

import assert from "node:assert/strict";
import { type Check, Correction } from "../../../router/scheduling/correction.ts";
import type { CorrectionRequest } from "../../../router/scheduling/generation.ts";

/** The longest context at which refreshes are made without being asked for. */
const CHEAP = 1000;

function correction(mode: CorrectionRequest["mode"], every: number | "auto" = "auto"): Correction {
  return new Correction({ mode, every, perToken: false }, CHEAP);
}

function check(index: number, dense = 7, divergence = 0.5): Check {
  return { index, token: 7, dense, divergence };
}

/** Takes in a correction of which so many checks agree, and one more does not. @returns the stride afterwards */
function take(of: Correction, agreed: number, diverges: "diverges" | "agrees" = "agrees"): number | undefined {
  const checks = Array.from({ length: agreed }, (_, i) => check(i));
  if (diverges === "diverges") checks.push(check(agreed, 8));
  of.record({ rows: checks.length + 1, checks, dropped: 0, isLast: true });
  return of.usage()?.stride;
}

Deno.test("Correction lengthens its stride while everything agrees and shortens it after a divergence, within bounds", () => {
  const audit = correction("audit");
  assert.equal(take(audit, 0, "diverges"), 4);
  assert.equal(Array.from({ length: 9 }, () => take(audit, 3)).at(-1), 64);
});

Deno.test("Correction keeps a stride that was asked for, and says when it is due", () => {
  const fixed = correction("lossless", 5);
  assert.deepEqual([4, 5, 6].map((rows) => fixed.isDue(rows, 9999)), [false, true, true]);
  assert.equal(take(fixed, 4), 5);
  assert.equal(take(fixed, 0, "diverges"), 5);
  assert.ok(correction("refresh", 1).isDue(1, 9999), "every token is dense");
});

Deno.test("Correction refreshes every 32 rows on its own account up to the context where that is cheap, and nowhere else", () => {
  const refresh = correction("refresh");
  assert.deepEqual([31, 32, 99].map((rows) => refresh.isDue(rows, CHEAP)), [false, true, true]);
  assert.ok(!refresh.isDue(99, CHEAP + 1));
  assert.equal(refresh.usage()?.stride, 32);
  const never = new Correction({ mode: "refresh", every: "auto", perToken: false }, 0);
  assert.deepEqual([never.isDue(9999, 1), never.usage()?.stride], [false, undefined]);
  const asked = new Correction({ mode: "refresh", every: 8, perToken: false }, 0);
  assert.ok(asked.isDue(8, 9999), "a stride that was asked for holds at any context");
});

Deno.test("Correction has nothing to do when it is off", () => {
  const off = correction("off");
  assert.deepEqual([off.isDue(999, 1), off.audits, off.usage()], [false, false, undefined]);
});

Deno.test("Correction adapts its stride by whole corrections, wherever they were cut", () => {
  const whole = correction("audit");
  take(whole, 5);
  take(whole, 3, "diverges");
  const cut = correction("audit");
  cut.record({ rows: 2, checks: [check(0), check(1)], dropped: 0, isLast: false });
  cut.record({ rows: 4, checks: [check(2), check(3), check(4)], dropped: 0, isLast: true });
  cut.record({ rows: 4, checks: [check(5), check(6), check(7)], dropped: 0, isLast: false });
  cut.record({ rows: 1, checks: [check(8, 9)], dropped: 0, isLast: true });
  const [a, b] = [whole.usage(), cut.usage()];
  assert.deepEqual([b?.stride, b?.corrections, b?.audit?.checked], [a?.stride, a?.corrections, a?.audit?.checked]);
});

Deno.test("Correction counts what was checked, and knows the first divergence", () => {
  const audit = new Correction({ mode: "audit", every: "auto", perToken: true }, CHEAP);
  audit.record({ rows: 3, checks: [check(1), { ...check(2), divergence: undefined }], dropped: 0, isLast: true });
  const report = audit.record({ rows: 3, checks: [check(3, 9), check(4, 9, 1.5)], dropped: 0, isLast: true });
  assert.deepEqual(report, {
    mode: "audit",
    isLast: true,
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
  lossless.record({ rows: 4, checks: [check(1), check(2, 9)], dropped: 2, isLast: true });
  lossless.record({ rows: 4, checks: [check(3), check(4), check(5)], dropped: 0, isLast: true });
  const { rollbacks, dropped, audit } = lossless.usage() ?? assert.fail();
  assert.deepEqual([rollbacks, dropped, audit?.checked, audit?.agreed], [1, 2, 5, 4]);
});
