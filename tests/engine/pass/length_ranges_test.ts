/** Which rows are dispatched together. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { type LengthRange, rangesByLength } from "../../../engine/pass/length_ranges.ts";

/** Rows of these lengths, each a piece of its own. */
function pieces(...longest: readonly number[]): LengthRange[] {
  return longest.map((longest, first) => ({ first, rows: 1, longest }));
}

const many = (count: number, longest: number) => Array.from({ length: count }, () => longest);

Deno.test("rangesByLength() dispatches one long row apart from 63 short ones, and at most a few times", () => {
  const ranges = rangesByLength(pieces(100_000, ...many(63, 512)));
  assert.deepEqual(ranges, [{ first: 0, rows: 1, longest: 100_000 }, { first: 1, rows: 63, longest: 512 }]);
  const spread = rangesByLength(pieces(...Array.from({ length: 64 }, (_, i) => Math.ceil(131_072 / 2 ** (i / 7)))));
  assert.ok(spread.length > 2 && spread.length < 8, `${spread.length} ranges`);
});

Deno.test("rangesByLength() keeps rows together where a dispatch more would cost more than it saves", () => {
  assert.equal(rangesByLength(pieces(100_000, 512)).length, 1, "one short row");
  assert.equal(rangesByLength(pieces(...many(32, 4096), ...many(32, 2304))).length, 1, "half as long");
  assert.equal(rangesByLength(pieces(2048, ...many(63, 256))).length, 1, "a short long row");
  assert.deepEqual(rangesByLength([]), []);
});

Deno.test("rangesByLength() covers all rows, in order, with at least what each sees, in any order of lengths", () => {
  const piece = fc.record({ rows: fc.integer({ min: 1, max: 9 }), longest: fc.integer({ min: 0, max: 200_000 }) });
  fc.assert(fc.property(fc.array(piece, { maxLength: 64 }), (given) => {
    let first = 0;
    const rows = given.map(({ rows, longest }) => ({ first: (first += rows) - rows, rows, longest }));
    const ranges = rangesByLength(rows);
    let next = 0;
    for (const range of ranges) {
      assert.equal(range.first, next);
      next += range.rows;
      const own = rows.filter((row) => row.first >= range.first && row.first < next);
      assert.equal(range.longest, Math.max(...own.map(({ longest }) => longest)));
      assert.equal(range.rows, own.reduce((sum, row) => sum + row.rows, 0), "a piece is not cut");
    }
    assert.equal(next, first);
  }));
});
