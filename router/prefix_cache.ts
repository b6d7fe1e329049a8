/**
 * Full, exact pages that outlive their sequences, found again by the tokens they hold: a tree of pages, one root for
 * each salt. A child is found by its 64 tokens themselves, never by a hash of them, so a hit is always right.
 * Knows pages and tokens; knows nothing of sequences.
 */

import { PAGE_TOKENS } from "../engine/span.ts";
import type { PagePool } from "./pages.ts";

/** Stands for the tokens of one page: equal keys are equal tokens. */
export type PageKey = string;

interface Root {
  readonly salt: string;
  readonly children: Map<PageKey, Node>;
}

interface Node {
  readonly key: PageKey;
  readonly page: number;
  readonly parent: Node | Root;
  readonly children: Map<PageKey, Node>;
}

/** @param tokens u32 [PAGE_TOKENS] */
export function pageKey(tokens: Uint32Array): PageKey {
  const halves = new Uint16Array(2 * PAGE_TOKENS);
  tokens.forEach((token, i) => {
    halves[2 * i] = token & 0xffff;
    halves[2 * i + 1] = token >>> 16;
  });
  return String.fromCharCode(...halves);
}

/** Holds pages in the pool until `evict` or `clear`. */
export class PrefixCache {
  readonly #pool: PagePool;
  readonly #roots = new Map<string, Root>();
  /** Least recently used first, and children before their parents: eviction in this order takes leaves first. */
  readonly #order = new Set<Node>();

  constructor(pool: PagePool) {
    this.#pool = pool;
  }

  /** The pages held, in no particular order. */
  pages(): number[] {
    return Array.from(this.#order, (node) => node.page);
  }

  /** The pages of the longest cached prefix. Does not retain them: the caller does, before anything is evicted. */
  match(salt: string, keys: readonly PageKey[]): number[] {
    return this.#path(salt, keys).map((node) => node.page);
  }

  /**
   * Holds the pages that are not cached yet and marks all as just used. Where the same tokens are cached already, the
   * older page stays and the caller's copy dies with its sequence.
   * @param pages page i holds the tokens of key i; a sequence holds each of them
   */
  insert(salt: string, keys: readonly PageKey[], pages: readonly number[]): void {
    const path = this.#path(salt, keys);
    let parent: Node | Root = path.at(-1) ?? this.#root(salt);
    for (let i = path.length; i < keys.length; i++) {
      const [key, page] = [keys[i], pages[i]];
      if (key === undefined || page === undefined) break;
      const node: Node = { key, page, parent, children: new Map() };
      this.#pool.cache(page);
      parent.children.set(key, node);
      path.push(node);
      parent = node;
    }
    for (const node of path.reverse()) this.#touch(node);
    this.#prune(this.#roots.get(salt));
  }

  /** Frees up to `count` pages that nobody else holds, least recently used first. @returns how many it freed */
  evict(count: number): number {
    const freeBefore = this.#pool.free;
    // Idle pages left means that the loop will reach one: those in use move to the back once, and stay there.
    for (const node of this.#order) {
      if (this.#pool.idle === 0 || this.#pool.free - freeBefore >= count) break;
      if (this.#pool.isIdle(node.page)) this.#drop(node);
      else this.#touch(node);
    }
    return this.#pool.free - freeBefore;
  }

  /** Lets go of everything. */
  clear(): void {
    for (const node of this.#order) this.#pool.uncache(node.page);
    this.#order.clear();
    this.#roots.clear();
  }

  #path(salt: string, keys: readonly PageKey[]): Node[] {
    const path: Node[] = [];
    let children = this.#roots.get(salt)?.children;
    for (const key of keys) {
      const node = children?.get(key);
      if (node === undefined) break;
      path.push(node);
      children = node.children;
    }
    return path;
  }

  #root(salt: string): Root {
    const root = this.#roots.get(salt) ?? { salt, children: new Map() };
    this.#roots.set(salt, root);
    return root;
  }

  #touch(node: Node): void {
    this.#order.delete(node);
    this.#order.add(node);
  }

  /** Takes the pages below along: without their parent nobody could find them. */
  #drop(top: Node): void {
    top.parent.children.delete(top.key);
    if ("salt" in top.parent) this.#prune(top.parent);
    // Not recursive: a long text is a chain of thousands.
    const doomed = [top];
    for (let node = doomed.pop(); node !== undefined; node = doomed.pop()) {
      doomed.push(...node.children.values());
      this.#order.delete(node);
      this.#pool.uncache(node.page);
    }
  }

  #prune(root: Root | undefined): void {
    if (root !== undefined && root.children.size === 0) this.#roots.delete(root.salt);
  }
}
