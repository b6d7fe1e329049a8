/** The pool never loses a page, never gives one twice, and refuses every wrong move. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PagePool } from "../../router/pages.ts";

Deno.test("PagePool.take() gives each page once and refuses more than are free", () => {
  const pool = new PagePool(3);
  assert.deepEqual(pool.take(2), [0, 1]);
  assert.ok(pool.canTake(1) && !pool.canTake(2));
  assert.throws(() => pool.take(2), { code: "kv_exhausted", message: /2 pages: only 1 of 3/ });
  assert.equal(pool.free, 1, "a refused take takes nothing");
  assert.deepEqual(pool.take(0), []);
});

Deno.test("PagePool.release() frees a page with its last holder only, and never twice", () => {
  const pool = new PagePool(1);
  pool.take(1);
  pool.retain(0);
  pool.release(0);
  assert.equal(pool.free, 0);
  pool.release(0);
  assert.equal(pool.free, 1);
  assert.throws(() => pool.release(0), { code: "invalid_step" });
  assert.throws(() => pool.retain(0), { code: "invalid_step" });
  assert.throws(() => pool.release(1), { code: "invalid_step" }, "outside the pool");
});

Deno.test("PagePool.release() cannot take a page away from the prefix cache", () => {
  const pool = new PagePool(1);
  pool.take(1);
  pool.cache(0);
  assert.throws(() => pool.cache(0), { code: "invalid_step" });
  pool.release(0);
  assert.ok(pool.isIdle(0));
  assert.equal(pool.idle, 1);
  assert.throws(() => pool.release(0), { code: "invalid_step" });
  pool.uncache(0);
  assert.deepEqual([pool.idle, pool.free], [0, 1]);
});

Deno.test("PagePool counts free, idle and held pages right after any sequence of moves", () => {
  const move = fc.tuple(fc.constantFrom("take", "retain", "release", "cache", "uncache"), fc.nat(7));
  fc.assert(fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
    const pool = new PagePool(8);
    const model = Array.from({ length: 8 }, () => ({ sequences: 0, cached: false }));
    for (const [kind, page] of moves) {
      const known = model[page] ?? assert.fail();
      if (kind === "take" && pool.canTake(1)) {
        const taken = model[pool.take(1)[0] ?? assert.fail()] ?? assert.fail();
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
      assert.equal(pool.free, model.filter((entry) => entry.sequences === 0 && !entry.cached).length);
      assert.equal(pool.idle, model.filter((entry) => entry.sequences === 0 && entry.cached).length);
    }
  }));
});
