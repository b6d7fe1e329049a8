/** A hit is always right, pages in use are never freed, and leaves go before their parents. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PageMap } from "../../../engine/page_map.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { PagePool } from "../../../router/scheduling/pages.ts";
import { pageKey, PrefixCache } from "../../../router/scheduling/prefix_cache.ts";

/** Keys of pages that hold one token each, 64 times. */
function keysOf(...tokens: number[]): string[] {
  return tokens.map((token) => pageKey(new Uint32Array(PAGE_TOKENS).fill(token)));
}

/** A pool and a cache, and a way to let a sequence compute pages and leave them behind. */
function setUp(...slices: number[]) {
  const map = new PageMap(slices);
  const pool = new PagePool(slices);
  const cache = new PrefixCache(pool);
  const take = (offset: number, from: number, count: number) =>
    pool.take(Array.from({ length: count }, (_, i) => map.owner(offset, from + i)));
  const leaveBehindAt = (offset: number, ...tokens: number[]) => {
    const pages = take(offset, 0, tokens.length);
    cache.insert("", keysOf(...tokens), { offset, pages });
    for (const page of pages) pool.release(page);
    return pages;
  };
  const leaveBehind = (salt: string, ...tokens: number[]) => {
    const pages = take(0, 0, tokens.length);
    cache.insert(salt, keysOf(...tokens), { offset: 0, pages });
    for (const page of pages) pool.release(page);
    return pages;
  };
  const match = (salt: string, ...tokens: number[]) => cache.match(salt, keysOf(...tokens))?.pages ?? [];
  return { map, pool, cache, take, leaveBehind, leaveBehindAt, match };
}

Deno.test("pageKey() differs whenever any token differs, high bits included", () => {
  const tokens = Uint32Array.from({ length: PAGE_TOKENS }, (_, i) => i);
  assert.equal(pageKey(tokens), pageKey(tokens.slice()));
  for (const i of [0, 31, 63]) assert.notEqual(pageKey(tokens), pageKey(tokens.with(i, (tokens[i] ?? 0) + 65536)));
});

Deno.test("PrefixCache.match() finds the longest prefix of the same tokens under the same salt", () => {
  const { match, leaveBehind } = setUp(8);
  const pages = leaveBehind("a", 1, 2, 3);
  assert.deepEqual(match("a", 1, 2, 3), pages);
  assert.deepEqual(match("a", 1, 2, 9, 3), pages.slice(0, 2));
  assert.deepEqual(match("a", 2, 3), [], "not a prefix");
  assert.deepEqual(match("b", 1, 2, 3), [], "another tenant's");
});

Deno.test("PrefixCache.match() returns the offset that the prefix was computed at", () => {
  const { cache, leaveBehindAt } = setUp(4, 8);
  const pages = leaveBehindAt(2, 1, 2);
  assert.deepEqual(cache.match("", keysOf(1, 2, 3)), { offset: 2, pages });
  assert.equal(cache.match("", keysOf(2)), undefined);
});

Deno.test("PrefixCache.insert() keeps the older page of equal tokens and hangs new ones below it", () => {
  const { pool, match, leaveBehind } = setUp(8);
  const [first] = leaveBehind("", 1);
  const [, second] = leaveBehind("", 1, 2);
  assert.deepEqual(match("", 1, 2), [first, second]);
  assert.deepEqual([...pool.free, ...pool.idle], [6, 2], "the copy was freed");
});

Deno.test("PrefixCache.insert() adds nothing to the same tokens at another offset, but keeps them alive", () => {
  const { pool, cache, match, leaveBehindAt } = setUp(4, 4);
  const older = leaveBehindAt(0, 1, 2);
  const other = leaveBehindAt(1, 5);
  leaveBehindAt(1, 1, 2, 3);
  assert.deepEqual(cache.match("", keysOf(1, 2, 3)), { offset: 0, pages: older });
  assert.deepEqual(pool.idle, [1, 2]);
  cache.evict(1, 1);
  assert.deepEqual([match("", 5), match("", 1, 2)], [[], older], `the page ${other} was used before`);
  leaveBehindAt(1, 5, 6);
  assert.equal(cache.match("", keysOf(5, 6))?.offset, 1, "another beginning may have another offset");
});

Deno.test("PrefixCache.evict() takes the least recently used leaf first", () => {
  const { pool, cache, match, leaveBehind } = setUp(4);
  leaveBehind("", 1, 2);
  leaveBehind("", 1, 3);
  assert.deepEqual(pool.free, [1]);
  assert.equal(cache.evict(0, 1), 1);
  assert.equal(match("", 1, 2).length, 1, "the older leaf is gone");
  assert.equal(match("", 1, 3).length, 2);
  assert.equal(cache.evict(0, 1), 1);
  assert.equal(match("", 1, 3).length, 1, "the root goes last");
  assert.equal(cache.evict(0, 5), 1, "no more than there is");
  assert.deepEqual(pool.free, [4]);
});

Deno.test("PrefixCache.evict() frees pages of the worker that needs them, the deepest first", () => {
  const { pool, cache, match, leaveBehind } = setUp(4, 4);
  leaveBehind("", 1, 2, 3, 4, 5);
  assert.deepEqual(pool.free, [1, 2]);
  assert.equal(cache.evict(1, 1), 1);
  assert.deepEqual(pool.free, [2, 3], "the page below it on the other worker cannot be found any more");
  assert.equal(match("", 1, 2, 3, 4, 5).length, 3);
  assert.equal(cache.evict(0, 1), 1);
  assert.deepEqual([pool.free, match("", 1, 2, 3).length], [[3, 3], 2]);
});

Deno.test("PrefixCache.evict() never frees a page that a sequence holds", () => {
  const { pool, cache, match, leaveBehind } = setUp(2);
  const [page] = leaveBehind("", 1);
  pool.retain(page ?? assert.fail());
  leaveBehind("", 2);
  assert.equal(cache.evict(0, 2), 1);
  assert.deepEqual(match("", 1), [page]);
});

Deno.test("PrefixCache.evict() frees an unused page although a copy's descendant is in use", () => {
  const { pool, cache, match, take, leaveBehind } = setUp(3);
  leaveBehind("", 1);
  const own = take(0, 0, 2);
  cache.insert("", keysOf(1, 2), { offset: 0, pages: own });
  assert.equal(cache.evict(0, 1), 1);
  assert.deepEqual(match("", 1, 2), [], "what hangs below cannot be found any more");
  for (const page of own) pool.release(page);
  assert.deepEqual(pool.free, [3], "and is not kept either");
});

Deno.test("PrefixCache.clear() lets go of everything", () => {
  const { pool, cache, leaveBehind } = setUp(2, 2);
  leaveBehind("", 1, 2, 3);
  cache.clear();
  assert.deepEqual([pool.free, cache.pages()], [[2, 2], []]);
});

Deno.test("PrefixCache never loses a page and only finds what was inserted where it lies, whatever happens", () => {
  const text = fc.array(fc.nat(2), { minLength: 1, maxLength: 4 });
  const offset = fc.nat(2);
  const action = fc.oneof(
    fc.record({ kind: fc.constant("leave" as const), text, offset }),
    fc.record({ kind: fc.constant("use" as const), text, offset }),
    fc.record({ kind: fc.constant("stop" as const), at: fc.nat(5) }),
    fc.record({ kind: fc.constant("evict" as const), worker: fc.nat(1), count: fc.nat(4) }),
  );
  fc.assert(fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
    const { map, pool, cache, take } = setUp(8, 4);
    const content = new Map<number, string>();
    const users: number[][] = [];
    const run = (text: number[], fresh: number) => {
      const keys = keysOf(...text);
      const found = cache.match("", keys);
      const offset = found?.offset ?? fresh;
      const pages = [...found?.pages ?? []];
      pages.forEach((page, i) => assert.equal(content.get(page), text.slice(0, i + 1).join(), "a wrong hit"));
      pages.forEach((page, i) => assert.equal(pool.workerOf(page), map.owner(offset, i), "a page astray"));
      for (const page of pages) pool.retain(page);
      for (let i = pages.length; i < text.length; i++) {
        const owner = map.owner(offset, i);
        cache.evict(owner, 1 - (pool.free[owner] ?? 0));
        if (!pool.canTake([owner])) break;
        pages.push(...take(offset, i, 1));
      }
      pages.forEach((page, i) => content.set(page, text.slice(0, i + 1).join()));
      cache.insert("", keys.slice(0, pages.length), { offset, pages });
      return pages;
    };
    const stop = (pages: readonly number[]) => pages.forEach((page) => pool.release(page));
    for (const step of actions) {
      if (step.kind === "leave") stop(run(step.text, step.offset));
      else if (step.kind === "use") users.push(run(step.text, step.offset));
      else if (step.kind === "stop") stop(users.splice(step.at, 1)[0] ?? []);
      else cache.evict(step.worker, step.count);
      const held = [...new Set([...users.flat(), ...cache.pages()])];
      const counts = [0, 1].map((worker) => held.filter((page) => pool.workerOf(page) === worker).length);
      assert.deepEqual(pool.free, [8 - (counts[0] ?? 0), 4 - (counts[1] ?? 0)]);
    }
    users.forEach(stop);
    cache.evict(0, 12);
    cache.evict(1, 12);
    assert.deepEqual(pool.free, [8, 4]);
  }));
});
