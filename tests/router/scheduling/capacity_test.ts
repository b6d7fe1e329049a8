/** The longest context is exact: one token more does not fit, whatever the offset. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PageMap } from "../../../engine/page_map.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { copiedContext, longestContext, longestOnSlices, pagesWithin } from "../../../router/scheduling/capacity.ts";

const slices = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 4 });

/** Gives a sequence page after page until the owner of the next one has no more room. */
function countedPages(map: PageMap, { offset, pages }: { offset: number; pages: number }, room: readonly number[]) {
  const left = [...room];
  for (let page = pages;; page++) {
    const owner = map.owner(offset, page);
    const pagesLeft = left[owner] ?? 0;
    if (pagesLeft <= 0) return page;
    left[owner] = pagesLeft - 1;
  }
}

Deno.test("pagesWithin() is what a sequence gets page by page", () => {
  fc.assert(fc.property(slices, fc.nat(300), fc.nat(100), fc.gen(), (slices, offset, pages, gen) => {
    const map = new PageMap(slices);
    const room = slices.map((most) => gen(fc.integer, { min: -2, max: most }));
    const place = { offset: offset % map.period, pages };
    assert.equal(pagesWithin(map, place, room), countedPages(map, place, room));
  }));
});

Deno.test("longestOnSlices() is the most that any offset gives, and nearly everything", () => {
  fc.assert(fc.property(slices, (slices) => {
    const map = new PageMap(slices);
    const counts = Array.from({ length: map.period }, (_, offset) => countedPages(map, { offset, pages: 0 }, slices));
    const longest = longestOnSlices(slices);
    assert.equal(longest, Math.max(...counts) * PAGE_TOKENS);
    const all = slices.reduce((sum, pages) => sum + pages, 0);
    assert.ok(longest >= (all - 2 * slices.length) * PAGE_TOKENS, `${longest / PAGE_TOKENS} of ${all} pages`);
  }));
});

Deno.test("longestContext() adds up the slices, unless the model ends before", () => {
  assert.equal(longestContext({ maxPositions: 10_000, slices: [7] }), 7 * 64);
  assert.equal(longestContext({ maxPositions: 10_000, slices: [7, 7] }), 14 * 64);
  assert.equal(longestContext({ maxPositions: 10_000, slices: [8, 4, 4] }), 16 * 64);
  assert.equal(longestContext({ maxPositions: 1000, slices: [8, 4, 4] }), 1000);
});

Deno.test("copiedContext() is the longest context that workers copy whole, no longer than they hold at all", () => {
  const of = (slices: number[], copyPages: number, maxPositions = 1e6) =>
    copiedContext({ slices, copyPages, maxPositions });
  assert.equal(of([100, 100], 25), 50 * PAGE_TOKENS);
  assert.equal(of([100, 100], 100), 200 * PAGE_TOKENS);
  assert.equal(of([100, 100], 100, 640), 640);
  assert.deepEqual([of([100], 25), of([100, 100], 0)], [undefined, undefined]);
});
