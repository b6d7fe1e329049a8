/**
 * Full, exact pages that outlive their sequences, found again by the tokens they hold: a tree of pages, one root for
 * each salt. A child is found by its 64 tokens themselves, never by a hash of them, so a hit is always right.
 * All that hangs below a root's child starts at the same offset of the page map, else its pages would lie on other
 * workers than those that look for them. Knows pages and tokens; knows nothing of sequences.
 */

import { at } from "../../kernels/at.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";
import type { PagePool } from "./pages.ts";

/** Stands for the tokens of one page: equal keys are equal tokens. */
export type PageKey = string;

interface Root {
  readonly salt: string;
  readonly children: Map<PageKey, Node>;
}

/** First pages of a sequence, in order of position, and the offset of the page map that they lie at. */
export interface Prefix {
  readonly offset: number;
  readonly pages: readonly number[];
}

interface Node {
  readonly key: PageKey;
  readonly offset: number;
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

/** The keys of a text's full pages, each made when it is first looked at. */
export class PageKeys implements Iterable<PageKey> {
  readonly #tokens: Uint32Array;
  readonly #keys: PageKey[] = [];

  /** @param tokens the last one is left out: at least one must be computed for anything to be drawn */
  constructor(tokens: Uint32Array) {
    this.#tokens = tokens.subarray(0, -1);
  }

  *[Symbol.iterator](): Generator<PageKey> {
    const full = Math.floor(this.#tokens.length / PAGE_TOKENS);
    for (let i = 0; i < full; i++) {
      yield this.#keys[i] ??= pageKey(this.#tokens.subarray(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS));
    }
  }
}

/** Holds pages in the pool until `evict` or `clear`. */
export class PrefixCache {
  readonly #pool: PagePool;
  readonly #roots = new Map<string, Root>();
  /**
   * For each worker the pages that lie on it, least recently used first, and below before above: eviction in this order
   * takes what is nearest to the leaves.
   */
  readonly #orders: readonly Set<Node>[];

  constructor(pool: PagePool) {
    this.#pool = pool;
    this.#orders = pool.slices.map(() => new Set<Node>());
  }

  /** The pages held, in no particular order. */
  pages(): number[] {
    return this.#orders.flatMap((order) => Array.from(order, (node) => node.page));
  }

  /** The longest cached prefix, if any. Does not retain its pages: the caller does, before anything is evicted. */
  match(salt: string, keys: Iterable<PageKey>): Prefix | undefined {
    const path = this.#path(salt, keys);
    const [first] = path;
    return first && { offset: first.offset, pages: path.map((node) => node.page) };
  }

  /**
   * Holds the pages that are not cached yet and marks all as just used. Where the same tokens are cached already, the
   * older page stays and the caller's copy dies with its sequence; where they are cached at another offset, nothing is
   * added.
   * @param pages page i holds the tokens of key i; a sequence holds each of them
   */
  insert(salt: string, keys: readonly PageKey[], { offset, pages }: Prefix): void {
    const path = this.#path(salt, keys);
    let parent: Node | Root = path.at(-1) ?? this.#root(salt);
    const fits = !("offset" in parent) || parent.offset === offset;
    for (let i = path.length; fits && i < keys.length; i++) {
      const [key, page] = [keys[i], pages[i]];
      if (key === undefined || page === undefined) break;
      const node: Node = { key, offset, page, parent, children: new Map() };
      this.#pool.cache(page);
      parent.children.set(key, node);
      path.push(node);
      parent = node;
    }
    for (const node of path.reverse()) this.#touch(node);
    this.#prune(this.#roots.get(salt));
  }

  /**
   * Frees pages of a worker that no sequence holds, least recently used first; what hangs below them goes along, on
   * whichever worker it lies.
   * @param count pages of this worker that are enough
   * @returns how many of its pages it freed
   */
  evict(worker: number, count: number): number {
    const freeBefore = at(this.#pool.free, worker);
    const freed = () => at(this.#pool.free, worker) - freeBefore;
    // Idle pages left means that the loop will reach one: those in use move to the back once, and stay there.
    for (const node of at(this.#orders, worker)) {
      if (this.#pool.idle[worker] === 0 || freed() >= count) break;
      if (this.#pool.isIdle(node.page)) this.#drop(node);
      else this.#touch(node);
    }
    return freed();
  }

  /** Lets go of everything. */
  clear(): void {
    for (const page of this.pages()) this.#pool.uncache(page);
    for (const order of this.#orders) order.clear();
    this.#roots.clear();
  }

  #path(salt: string, keys: Iterable<PageKey>): Node[] {
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
    const order = this.#orderOf(node);
    order?.delete(node);
    order?.add(node);
  }

  #orderOf({ page }: Node): Set<Node> | undefined {
    return this.#orders[this.#pool.workerOf(page)];
  }

  /** Takes the pages below along: without their parent they could not be found. */
  #drop(top: Node): void {
    top.parent.children.delete(top.key);
    if ("salt" in top.parent) this.#prune(top.parent);
    // Not recursive: a long text is a chain of thousands.
    const doomed = [top];
    for (let node = doomed.pop(); node !== undefined; node = doomed.pop()) {
      doomed.push(...node.children.values());
      this.#orderOf(node)?.delete(node);
      this.#pool.uncache(node.page);
    }
  }

  #prune(root: Root | undefined): void {
    if (root !== undefined && root.children.size === 0) this.#roots.delete(root.salt);
  }
}
