/** The account of copied pages: what it takes, what it keeps, and that all workers keep the same. */

import assert from "node:assert/strict";
import { type CopiedPiece, PageCopies } from "../../../engine/kv/page_copies.ts";
import { PageMap } from "../../../engine/page_map.ts";

const MAP = new PageMap([10, 5, 1]);
const POOL = 24;

/** Rows of a sequence whose physical pages are numbered from 100 times its number on, after those of its prefix. */
function piece(
  sequence: number,
  { from, rows, prefix = [] }: { readonly from: number; readonly rows: number; readonly prefix?: readonly number[] },
): CopiedPiece {
  const open = { sequence, pageOffset: 0, prefixPages: Uint32Array.from(prefix) };
  const own = Array.from({ length: 60 }, (_, i) => 100 * sequence + prefix.length + i);
  return { sequence: { open, physicalPages: [...prefix, ...own] }, from, rows };
}

/** Plays the same on all workers: `record` notes what must be alike. */
function onAll(
  play: (copies: PageCopies, record: (...facts: unknown[]) => void, index: number) => void,
): readonly unknown[] {
  const histories = Array.from({ length: MAP.workers }, (_, index) => {
    const free = Array.from({ length: POOL }, (_, i) => i);
    const history: unknown[] = [];
    const copies = new PageCopies({ map: MAP, index }, free);
    play(copies, (...facts) => void history.push(...facts), index);
    copies.clear();
    assert.deepEqual(free.toSorted((a, b) => a - b), Array.from({ length: POOL }, (_, i) => i), "all are given back");
    return history;
  });
  for (const history of histories) assert.deepEqual(history, histories[0]);
  return histories[0] ?? [];
}

Deno.test("PageCopies.extend() takes what every worker has room for, alike on all, and only after what is copied", () => {
  const history = onAll((copies, record, index) => {
    const extend = (...pieces: readonly CopiedPiece[]) => record(copies.extend(pieces), copies.freePages);
    extend(piece(1, { from: 0, rows: 640 }));
    extend(piece(1, { from: 650, rows: 10 }));
    extend(piece(2, { from: 64, rows: 64 }));
    extend(piece(2, { from: 0, rows: 640 }), piece(3, { from: 0, rows: 130 }));
    copies.dropFrom(2, 100);
    extend(piece(2, { from: 101, rows: 64 }));
    extend(piece(2, { from: 100, rows: 640 }));
    extend(piece(4, { from: 0, rows: 64 * 40 }));
    for (const owner of [0, 1, 2]) {
      const held = copies.placesOf(2, owner);
      assert.equal(held.length, owner === index ? 0 : MAP.pagesBefore(owner, 0, 12));
      assert.equal(new Set(held).size, held.length);
    }
  });
  assert.deepEqual(history.filter((_, i) => i % 2 === 0), [true, false, false, true, false, true, false]);
});

Deno.test("PageCopies keeps full pages of sequences that are gone, for those that start on them, while there is room", () => {
  const prefix = [100, 101, 102];
  const history = onAll((copies, record, index) => {
    record(copies.extend([piece(1, { from: 0, rows: 200 })]));
    const places = [0, 1, 2].map((owner) => copies.placesOf(1, owner).slice());
    copies.release([1]);
    const follow = (sequence: number) => piece(sequence, { from: 192, rows: 5, prefix });
    record(copies.canExtend([follow(2)], []), copies.extend([follow(2)]), copies.extend([follow(3)]));
    // The pages themselves are shared; the partial one of the first sequence is not.
    for (const owner of [0, 1, 2]) {
      const kept = MAP.pagesBefore(owner, 0, 3);
      for (const sequence of [2, 3]) {
        assert.deepEqual(
          copies.placesOf(sequence, owner).slice(0, kept),
          places[owner]?.slice(0, owner === index ? 0 : kept),
        );
      }
    }
    copies.release([2, 3]);
    copies.reassign([101]);
    record(copies.extend([follow(4)]));
    // A prefix of other pages was never copied.
    record(copies.extend([piece(5, { from: 64, rows: 5, prefix: [900] })]));
  });
  assert.deepEqual(history, [true, true, true, true, false, false]);
});

Deno.test("PageCopies gives way: unused pages first, then the sequence that was extended longest ago, never one that stays", () => {
  const history = onAll((copies, record) => {
    record(copies.extend([piece(1, { from: 0, rows: 64 * 6 })]));
    copies.release([1]);
    record(copies.extend([piece(2, { from: 0, rows: 64 * 6 })]), copies.extend([piece(3, { from: 0, rows: 64 * 6 })]));
    // Takes the pages of the first, and none of those that are in use.
    record(copies.extend([piece(4, { from: 0, rows: 64 * 6 })]));
    record(copies.extend([piece(2, { from: 384, rows: 1 })]), copies.extend([piece(3, { from: 384, rows: 1 })]));
    const [grown, other] = [piece(3, { from: 385, rows: 64 * 9 }), piece(4, { from: 384, rows: 1 })];
    record(copies.canExtend([grown], [grown, other, piece(2, { from: 385, rows: 1 })]));
    record(
      copies.extend([grown], [grown, other]),
      copies.extend([other]),
      copies.extend([piece(2, { from: 385, rows: 1 })]),
    );
    while (copies.releaseOldest());
    record(copies.freePages);
  });
  assert.deepEqual(history, [true, true, true, true, true, true, false, true, true, false, POOL]);
});

Deno.test("PageCopies keeps nothing of a sequence that gave way and goes on: it may write over its rows", () => {
  const history = onAll((copies, record) => {
    record(copies.extend([piece(1, { from: 0, rows: 64 * 20 })]));
    record(copies.extend([piece(2, { from: 0, rows: 64 * 20 })]));
    copies.dropFrom(1, 64);
    copies.release([1, 2]);
    // The first one's second page was rewritten meanwhile.
    record(copies.extend([piece(3, { from: 192, rows: 5, prefix: [100, 101, 102] })]));
    record(copies.extend([piece(4, { from: 192, rows: 5, prefix: [200, 201, 202] })]));
  });
  assert.deepEqual(history, [true, true, false, true]);
});
