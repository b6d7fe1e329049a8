import assert from "node:assert/strict";
import { scratchShape } from "../../../../kernels/attention/split/split_scratch.ts";
import {
  GATHERED_CUTS,
  jointSplitsOf,
  MATRIX_CUT,
  PLAIN_CUT,
  type SplitCut,
  splitsOf,
} from "../../../../kernels/attention/split/split_cut.ts";

const CUTS = { plain: PLAIN_CUT, matrix: MATRIX_CUT, ...GATHERED_CUTS };

/** At and around every bound, and far behind. */
const COUNTS = [...new Set([1, 63, 100_000, 1_000_000, ...MATRIX_CUT.lengths.map(({ upTo }) => upTo)])]
  .filter(Number.isFinite).flatMap((count) => [count - 1, count, count + 1]);

function lengthOf({ lengths }: SplitCut, count: number): number {
  return lengths.find(({ upTo }) => count <= upTo)?.rows ?? NaN;
}

/** Splits of a row that sees [from, limit), at one of the lengths. */
function splitsBetween(from: number, limit: number, length: number): number {
  return limit <= from ? 0 : Math.ceil(limit / length) - Math.floor(from / length);
}

for (const [name, cut] of Object.entries(CUTS)) {
  Deno.test(`splitsOf() is enough for every row up to the longest: ${name}`, () => {
    for (const longest of COUNTS) {
      const enough = splitsOf(cut, longest);
      for (const count of COUNTS.filter((count) => count <= longest)) {
        for (const from of cut.gathered ? [0] : [0, 1, 63, 4095]) {
          const needed = splitsBetween(from, from + count, lengthOf(cut, count));
          assert.ok(needed <= enough, `${count} rows from ${from} need ${needed} of ${enough}`);
        }
      }
    }
  });
}

Deno.test("jointSplitsOf() is enough for consecutive rows on both sides of a bound", () => {
  for (const cut of [PLAIN_CUT, MATRIX_CUT]) {
    for (const longest of COUNTS) {
      for (const rows of [1, 2, 32]) {
        const enough = jointSplitsOf(cut, longest, rows);
        for (const from of [0, 77]) {
          const [fewest, most] = [Math.max(0, longest - rows + 1), longest];
          const lengths = new Set([lengthOf(cut, fewest), lengthOf(cut, most)]);
          const needed = [...lengths].reduce((sum, length) => sum + splitsBetween(from, from + most, length), 0);
          assert.ok(needed <= enough, `${rows} rows up to ${longest} from ${from}: ${needed} of ${enough}`);
        }
      }
    }
  }
});

Deno.test("MATRIX_CUT leaves 32 rows of 32 heads at 100,000 in one pass of scratch", () => {
  const shape = { heads: 32, kvHeads: 8, headDim: 128 };
  const { lse: [states = 0] } = scratchShape(shape, { rows: 32, longest: 100_000, selected: 512 });
  assert.ok(states >= 32 * splitsOf(MATRIX_CUT, 100_000), `${states} states`);
});
