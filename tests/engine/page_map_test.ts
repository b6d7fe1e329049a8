/** Which worker owns which page, and where: the map against plain counting. */

import assert from "node:assert/strict";

import fc from "fast-check";
import { PageMap } from "../../engine/page_map.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";

const groups = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 5 });
const offsets = fc.integer({ min: 0, max: 600 });

Deno.test("PageMap places pages as plain counting does, and finds them again", () => {
  fc.assert(
    fc.property(groups, offsets, (slices, offset) => {
      const map = new PageMap(slices);
      const counts = slices.map(() => 0);
      for (let page = 0; page < 700; page++) {
        const owner = map.owner(offset, page);
        slices.forEach((_, worker) => assert.equal(map.pagesBefore(worker, offset, page), counts[worker]));
        assert.equal(map.globalPage(owner, offset, counts[owner] ?? NaN), page);
        counts[owner] = (counts[owner] ?? 0) + 1;
      }
    }),
    { numRuns: 60 },
  );
});

Deno.test("PageMap counts local rows as plain counting does, and finds their positions again", () => {
  fc.assert(
    fc.property(groups, offsets, (slices, offset) => {
      const map = new PageMap(slices);
      const rows = slices.map(() => 0);
      for (let position = 0; position < 6 * PAGE_TOKENS + 3; position++) {
        slices.forEach((_, worker) => assert.equal(map.localRows(worker, offset, position), rows[worker]));
        const owner = map.owner(offset, Math.floor(position / PAGE_TOKENS));
        assert.equal(map.globalRow(owner, offset, rows[owner] ?? NaN), position);
        rows[owner] = (rows[owner] ?? 0) + 1;
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("PageMap deals any run of pages nearly in proportion to the slices", () => {
  fc.assert(
    fc.property(groups, offsets, fc.integer({ min: 1, max: 2000 }), (slices, offset, pages) => {
      const map = new PageMap(slices);
      const total = slices.reduce((a, b) => a + b, 0);
      slices.forEach((slice, worker) => {
        const exact = pages * slice / total;
        // One page of unevenness at each end, and what weights lose when they are rounded to a table of 256.
        const slack = 2 + slices.length + pages * slices.length / 128;
        assert.ok(Math.abs(map.pagesBefore(worker, offset, pages) - exact) <= slack);
      });
    }),
    { numRuns: 300 },
  );
});

Deno.test("PageMap repeats after its period, at most 256 pages", () => {
  fc.assert(
    fc.property(groups, fc.integer({ min: 0, max: 3000 }), (slices, page) => {
      const map = new PageMap(slices);
      assert.ok(map.period <= 256);
      assert.equal(map.owner(0, page), map.owner(page % map.period, 0));
      assert.equal(map.owner(map.period, page), map.owner(0, page));
    }),
    { numRuns: 200 },
  );
});

Deno.test("PageMap numbers physical pages through, worker by worker", () => {
  const map = new PageMap([3, 2]);
  assert.deepEqual([map.pages, map.base(0), map.base(1), map.base(2)], [5, 0, 3, 5]);
  assert.deepEqual([0, 2, 3, 4, 5].map((page) => [map.isOn(0, page), map.isOn(1, page)]), [
    [true, false],
    [true, false],
    [false, true],
    [false, true],
    [false, false],
  ]);
});

Deno.test("PageMap refuses a group without workers and a worker without pages", () => {
  assert.throws(() => new PageMap([]), /Cannot map pages/);
  assert.throws(() => new PageMap([4, 0]), /given \[4,0\]/);
});
