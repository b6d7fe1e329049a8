/**
 * Who holds which page: moves pages between the pool, the sequences and the prefix cache, so that no one else has to
 * count. Knows sequences and their pages; knows nothing of steps or of who should run.
 */

import { EngineError } from "../engine/errors.ts";
import { PAGE_TOKENS, pagesFor } from "../engine/span.ts";
import type { SequenceId } from "../engine/span.ts";
import { PagePool } from "./pages.ts";
import { PrefixCache } from "./prefix_cache.ts";
import type { Sequence } from "./sequence.ts";

/** The accounts of one group while it lives; a group that broke gets new ones. */
export class PageLedger {
  readonly #pool: PagePool;
  readonly #cache: PrefixCache;

  constructor(pages: number) {
    this.#pool = new PagePool(pages);
    this.#cache = new PrefixCache(this.#pool);
  }

  /** Pages by holder: `used` by sequences, `cached` by the prefix cache alone. */
  get pages(): { readonly total: number; readonly used: number; readonly cached: number; readonly free: number } {
    const { size, idle, free } = this.#pool;
    return { total: size, used: size - idle - free, cached: idle, free };
  }

  /** Whether all tokens of a waiting sequence would fit, leaving `reserved` pages for others. */
  canAdmit(sequence: Sequence, reserved: number): boolean {
    const shared = this.#match(sequence);
    const needed = pagesFor(sequence.length) - shared.length;
    const available = this.#pool.free + this.#pool.idle - shared.filter((page) => this.#pool.isIdle(page)).length;
    return needed + reserved <= available;
  }

  /** Starts a sequence on what the prefix cache has of it; further pages come with `grow`. */
  admit(sequence: Sequence, id: SequenceId): void {
    const shared = this.#match(sequence);
    for (const page of shared) this.#pool.retain(page);
    sequence.start(id, shared);
  }

  /** Positions that a sequence could hold if it got everything nobody else uses. */
  reach(sequence: Sequence): number {
    return (sequence.pages.length + this.#pool.free + this.#pool.idle) * PAGE_TOKENS;
  }

  /**
   * Gives a sequence the pages up to position `end`, evicting cached prefixes where needed.
   * @returns the new pages, in order of position
   * @throws {EngineError} `kv_exhausted` beyond `reach`
   */
  grow(sequence: Sequence, end: number): readonly number[] {
    const needed = Math.max(0, pagesFor(end) - sequence.pages.length);
    this.#cache.evict(needed - this.#pool.free);
    const pages = this.#pool.take(needed);
    sequence.pages.push(...pages);
    return pages;
  }

  /** Lets others use the full pages of a sequence that will never change again. */
  share(sequence: Sequence): void {
    const keys = sequence.keys(Math.floor(sequence.exact / PAGE_TOKENS));
    this.#cache.insert(sequence.request.cacheSalt, keys, sequence.pages);
  }

  /** Takes all pages of a sequence back; the exact ones stay cached. */
  leave(sequence: Sequence): void {
    this.share(sequence);
    for (const page of sequence.pages) this.#pool.release(page);
    sequence.stop();
  }

  /**
   * Checks that every page has exactly the holders that are known.
   * @throws {EngineError} `invalid_step` naming the first page that has not
   */
  check(running: readonly Sequence[]): void {
    const holders = new Uint32Array(this.#pool.size);
    const known = [...this.#cache.pages(), ...running.flatMap((sequence) => sequence.pages)];
    for (const page of known) holders[page] = (holders[page] ?? 0) + 1;
    holders.forEach((expected, page) => {
      const counted = this.#pool.holders(page);
      if (counted === expected) return;
      throw new EngineError(
        "invalid_step",
        `Cannot balance page ${page}: ${counted} holders counted, ${expected} known`,
      );
    });
    const free = holders.filter((count) => count === 0).length;
    if (free === this.#pool.free) return;
    throw new EngineError("invalid_step", `Cannot balance pages: ${this.#pool.free} counted as free, ${free} unheld`);
  }

  /** At least one token is left to compute: nothing could be drawn otherwise. */
  #match(sequence: Sequence): number[] {
    const keys = sequence.keys(Math.floor((sequence.length - 1) / PAGE_TOKENS));
    return this.#cache.match(sequence.request.cacheSalt, keys);
  }
}
