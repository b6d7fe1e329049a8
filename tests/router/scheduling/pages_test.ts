/** The pool never loses a page, never gives one twice, and refuses every wrong move. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PagePool } from "../../../router/scheduling/pages.ts";

Deno.test("PagePool.take() gives each page once and refuses more than are free", () => {
  const pool = new PagePool([3]);
  assert.deepEqual(pool.take([0, 0]), [0, 1]);
  assert.ok(pool.canTake([0]) && !pool.canTake([0, 0]));
  assert.throws(() => pool.take([0, 0]), { code: "kv_exhausted", message: /2 pages: only 1 of 3/ });
  assert.equal(pool.free[0], 1, "a refused take takes nothing");
  assert.deepEqual(pool.take([]), []);
});

Deno.test("PagePool.release() frees a page with its last holder only, and never twice", () => {
  const pool = new PagePool([1]);
  pool.take([0]);
  pool.retain(0);
  pool.release(0);
  assert.equal(pool.free[0], 0);
  pool.release(0);
  assert.equal(pool.free[0], 1);
  assert.throws(() => pool.release(0), { code: "invalid_step" });
  assert.throws(() => pool.retain(0), { code: "invalid_step" });
  assert.throws(() => pool.release(1), { code: "invalid_step" }, "outside the pool");
});

Deno.test("PagePool.release() cannot take a page away from the prefix cache", () => {
  const pool = new PagePool([1]);
  pool.take([0]);
  pool.cache(0);
  assert.throws(() => pool.cache(0), { code: "invalid_step" });
  pool.release(0);
  assert.ok(pool.isIdle(0));
  assert.equal(pool.idle[0], 1);
  assert.throws(() => pool.release(0), { code: "invalid_step" });
  pool.uncache(0);
  assert.deepEqual([...pool.idle, ...pool.free], [0, 1]);
});

Deno.test("PagePool.take() numbers the pages of the workers through, and takes each where it is asked to", () => {
  const pool = new PagePool([2, 1, 3]);
  assert.deepEqual(pool.take([2, 0, 2, 1]), [3, 0, 4, 2]);
  assert.deepEqual([pool.size, pool.free], [6, [1, 0, 1]]);
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((page) => pool.workerOf(page)), [0, 0, 1, 2, 2, 2]);
  assert.throws(() => pool.take([0, 1]), { code: "kv_exhausted", message: /1,0,1 of 2,1,3/ });
  assert.deepEqual(pool.free, [1, 0, 1], "a refused take takes nothing");
  pool.release(2);
  assert.deepEqual(pool.free, [1, 1, 1], "a page returns to its worker");
  assert.throws(() => pool.workerOf(6), { code: "invalid_step" });
});

Deno.test("PagePool counts free, idle and held pages of each worker right after any sequence of moves", () => {
  const move = fc.tuple(fc.constantFrom("take", "retain", "release", "cache", "uncache"), fc.nat(7));
  fc.assert(fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
    const pool = new PagePool([5, 3]);
    const model = Array.from({ length: 8 }, () => ({ sequences: 0, cached: false }));
    for (const [kind, page] of moves) {
      const known = model[page] ?? assert.fail();
      const worker = page < 5 ? 0 : 1;
      if (kind === "take" && pool.canTake([worker])) {
        const [given = assert.fail()] = pool.take([worker]);
        assert.equal(given < 5 ? 0 : 1, worker);
        const taken = model[given] ?? assert.fail();
        assert.deepEqual(taken, { sequences: 0, cached: false });
        taken.sequences = 1;
      } else if (kind === "retain" && (known.sequences > 0 || known.cached)) {
        pool.retain(page);
        known.sequences++;
      } else if (kind === "release" && known.sequences > 0) {
        pool.release(page);
        known.sequences--;
      } else if (kind === "cache" && known.sequences > 0 && !known.cached) {
        pool.cache(page);
        known.cached = true;
      } else if (kind === "uncache" && known.cached) {
        pool.uncache(page);
        known.cached = false;
      }
      const count = (isMeant: (entry: typeof known) => boolean) =>
        [model.slice(0, 5), model.slice(5)].map((entries) => entries.filter(isMeant).length);
      assert.deepEqual(pool.free, count((entry) => entry.sequences === 0 && !entry.cached));
      assert.deepEqual(pool.idle, count((entry) => entry.sequences === 0 && entry.cached));
    }
  }));
});
