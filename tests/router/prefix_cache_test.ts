/** A hit is always right, pages in use are never freed, and leaves go before their parents. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PAGE_TOKENS } from "../../engine/span.ts";
import { PagePool } from "../../router/pages.ts";
import { pageKey, PrefixCache } from "../../router/prefix_cache.ts";

/** Keys of pages that hold one token each, 64 times. */
function keysOf(...tokens: number[]): string[] {
  return tokens.map((token) => pageKey(new Uint32Array(PAGE_TOKENS).fill(token)));
}

/** A pool and a cache, and a way to let a sequence compute pages and leave them behind. */
function setUp(size: number) {
  const pool = new PagePool(size);
  const cache = new PrefixCache(pool);
  const leaveBehind = (salt: string, ...tokens: number[]) => {
    const pages = pool.take(tokens.length);
    cache.insert(salt, keysOf(...tokens), pages);
    for (const page of pages) pool.release(page);
    return pages;
  };
  return { pool, cache, leaveBehind };
}

Deno.test("pageKey() differs whenever any token differs, high bits included", () => {
  const tokens = Uint32Array.from({ length: PAGE_TOKENS }, (_, i) => i);
  assert.equal(pageKey(tokens), pageKey(tokens.slice()));
  for (const i of [0, 31, 63]) assert.notEqual(pageKey(tokens), pageKey(tokens.with(i, (tokens[i] ?? 0) + 65536)));
});

Deno.test("PrefixCache.match() finds the longest prefix of the same tokens under the same salt", () => {
  const { cache, leaveBehind } = setUp(8);
  const pages = leaveBehind("a", 1, 2, 3);
  assert.deepEqual(cache.match("a", keysOf(1, 2, 3)), pages);
  assert.deepEqual(cache.match("a", keysOf(1, 2, 9, 3)), pages.slice(0, 2));
  assert.deepEqual(cache.match("a", keysOf(2, 3)), [], "not a prefix");
  assert.deepEqual(cache.match("b", keysOf(1, 2, 3)), [], "another tenant's");
});

Deno.test("PrefixCache.insert() keeps the older page of equal tokens and hangs new ones below it", () => {
  const { pool, cache, leaveBehind } = setUp(8);
  const [first] = leaveBehind("", 1);
  const [, second] = leaveBehind("", 1, 2);
  assert.deepEqual(cache.match("", keysOf(1, 2)), [first, second]);
  assert.deepEqual([pool.free, pool.idle], [6, 2], "the copy was freed");
});

Deno.test("PrefixCache.evict() takes the least recently used leaf first", () => {
  const { pool, cache, leaveBehind } = setUp(4);
  leaveBehind("", 1, 2);
  leaveBehind("", 1, 3);
  assert.equal(pool.free, 1);
  assert.equal(cache.evict(1), 1);
  assert.equal(cache.match("", keysOf(1, 2)).length, 1, "the older leaf is gone");
  assert.equal(cache.match("", keysOf(1, 3)).length, 2);
  assert.equal(cache.evict(1), 1);
  assert.equal(cache.match("", keysOf(1, 3)).length, 1, "the root goes last");
  assert.equal(cache.evict(5), 1, "no more than there is");
  assert.equal(pool.free, 4);
});

Deno.test("PrefixCache.evict() never frees a page that a sequence holds", () => {
  const { pool, cache, leaveBehind } = setUp(2);
  const [page] = leaveBehind("", 1);
  pool.retain(page ?? assert.fail());
  leaveBehind("", 2);
  assert.equal(cache.evict(2), 1);
  assert.deepEqual(cache.match("", keysOf(1)), [page]);
});

Deno.test("PrefixCache.evict() frees an unused page although a copy's descendant is in use", () => {
  const { pool, cache, leaveBehind } = setUp(3);
  leaveBehind("", 1);
  const own = pool.take(2);
  cache.insert("", keysOf(1, 2), own);
  assert.equal(cache.evict(1), 1);
  assert.deepEqual(cache.match("", keysOf(1, 2)), [], "what hangs below cannot be found any more");
  for (const page of own) pool.release(page);
  assert.equal(pool.free, 3, "and is not kept either");
});

Deno.test("PrefixCache.clear() lets go of everything", () => {
  const { pool, cache, leaveBehind } = setUp(4);
  leaveBehind("", 1, 2, 3);
  cache.clear();
  assert.deepEqual([pool.free, cache.pages()], [4, []]);
});

Deno.test("PrefixCache never loses a page and only finds what was inserted, whatever happens", () => {
  const text = fc.array(fc.nat(2), { minLength: 1, maxLength: 4 });
  const action = fc.oneof(
    fc.record({ kind: fc.constant("leave" as const), text }),
    fc.record({ kind: fc.constant("use" as const), text }),
    fc.record({ kind: fc.constant("stop" as const), at: fc.nat(5) }),
    fc.record({ kind: fc.constant("evict" as const), count: fc.nat(4) }),
  );
  fc.assert(fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
    const { pool, cache } = setUp(12);
    const content = new Map<number, string>();
    const users: number[][] = [];
    const run = (text: number[]) => {
      const keys = keysOf(...text);
      const pages = cache.match("", keys);
      pages.forEach((page, i) => assert.equal(content.get(page), text.slice(0, i + 1).join(), "a wrong hit"));
      for (const page of pages) pool.retain(page);
      cache.evict(text.length - pages.length - pool.free);
      const missing = Math.min(text.length - pages.length, pool.free);
      pages.push(...pool.take(missing));
      pages.forEach((page, i) => content.set(page, text.slice(0, i + 1).join()));
      cache.insert("", keys.slice(0, pages.length), pages);
      return pages;
    };
    const stop = (pages: readonly number[]) => pages.forEach((page) => pool.release(page));
    for (const step of actions) {
      if (step.kind === "leave") stop(run(step.text));
      else if (step.kind === "use") users.push(run(step.text));
      else if (step.kind === "stop") stop(users.splice(step.at, 1)[0] ?? []);
      else cache.evict(step.count);
      const held = new Set([...users.flat(), ...cache.pages()]);
      assert.equal(pool.free, 12 - held.size);
    }
    users.forEach(stop);
    cache.evict(12);
    assert.equal(pool.free, 12);
  }));
});
