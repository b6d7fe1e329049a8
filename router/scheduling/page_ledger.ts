/**
 * Who holds which page: moves pages between the pool, the sequences and the prefix cache, so that no one else has to
 * count. Knows sequences, their pages and the workers that these lie on; knows nothing of steps or of who should run.
 */

import { at } from "../../kernels/at.ts";
import { EngineError } from "../../engine/errors.ts";
import { PageMap } from "../../engine/page_map.ts";
import { PAGE_TOKENS, pagesFor } from "../../engine/span.ts";
import type { SequenceId } from "../../engine/span.ts";
import { pagesWithin } from "./capacity.ts";
import { PagePool, total } from "./pages.ts";
import { type PageKey, type Prefix, PrefixCache } from "./prefix_cache.ts";
import type { Sequence } from "./sequence.ts";

/** The accounts of one group while it lives; a group that broke gets new ones. */
export class PageLedger {
  readonly #map: PageMap;
  readonly #pool: PagePool;
  readonly #cache: PrefixCache;
  /** Where the last sequence without a prefix started: offsets take turns. */
  #lastOffset: number;

  /** @param slices pages of each worker */
  constructor(slices: readonly number[]) {
    this.#map = new PageMap(slices);
    this.#pool = new PagePool(slices);
    this.#cache = new PrefixCache(this.#pool);
    this.#lastOffset = this.#map.period - 1;
  }

  /** Pages by holder: `used` by sequences, `cached` by the prefix cache alone. */
  get pages(): { readonly total: number; readonly used: number; readonly cached: number; readonly free: number } {
    const { size, idle, free } = this.#pool;
    const [cached, unheld] = [total(idle), total(free)];
    return { total: size, used: size - cached - unheld, cached, free: unheld };
  }

  /** Different offsets that a sequence could start at; as many pages in a row load all workers by their capacity. */
  get period(): number {
    return this.#map.period;
  }

  /** Of the group. */
  get workers(): number {
    return this.#map.workers;
  }

  /** Tokens at the beginning of a text that the prefix cache holds. */
  cachedTokens(salt: string, keys: Iterable<PageKey>): number {
    return PAGE_TOKENS * (this.#cache.match(salt, keys)?.pages.length ?? 0);
  }

  /** Pages that can be had, over all workers, beside what those who run were promised. */
  pagesBeside(running: readonly Sequence[]): number {
    return total(this.#roomBeside(running).map((pages) => Math.max(0, pages)));
  }

  /** Whether all tokens of a waiting sequence would fit beside those that run, and the next page of each of these. */
  canAdmit(sequence: Sequence, running: readonly Sequence[]): boolean {
    return this.#start(sequence, running) !== undefined;
  }

  /**
   * Starts a sequence on what the prefix cache has of it, else where the workers with most room get most of it;
   * further pages come with `grow`.
   * @throws {EngineError} `kv_exhausted` unless `canAdmit`
   */
  admit(sequence: Sequence, id: SequenceId, running: readonly Sequence[]): void {
    const start = this.#start(sequence, running);
    if (start === undefined) {
      throw new EngineError(
        "kv_exhausted",
        `Cannot admit sequence ${id}: too few of ${this.#pool.size} pages are left`,
      );
    }
    for (const page of start.pages) this.#pool.retain(page);
    if (start.pages.length === 0) this.#lastOffset = start.offset;
    sequence.start(id, start);
  }

  /** Positions that a sequence could hold if it got everything that no other uses. */
  reach({ pageOffset: offset, pages }: Sequence): number {
    return pagesWithin(this.#map, { offset, pages: pages.length }, this.#available()) * PAGE_TOKENS;
  }

  /** The worker that cannot give a sequence the first page beyond its `reach`. */
  bottleneck(sequence: Sequence): number {
    return this.#map.owner(sequence.pageOffset, this.reach(sequence) / PAGE_TOKENS);
  }

  /** Whether a sequence holds a page on a worker. */
  holdsOn({ pageOffset, pages }: Sequence, worker: number): boolean {
    return this.#map.pagesBefore(worker, pageOffset, pages.length) > 0;
  }

  /**
   * Gives a sequence the pages up to position `end`, evicting cached prefixes where needed.
   * @returns the new pages, in order of position
   * @throws {EngineError} `kv_exhausted` beyond `reach`
   */
  grow(sequence: Sequence, end: number): readonly number[] {
    const { pages: held } = sequence;
    const owners = this.#newOwners(sequence, end);
    for (const worker of new Set(owners)) {
      const needed = owners.filter((owner) => owner === worker).length;
      this.#cache.evict(worker, needed - at(this.#pool.free, worker));
    }
    const pages = this.#pool.take(owners);
    held.push(...pages);
    return pages;
  }

  /** Whether free pages alone, without evicting cached ones, let all of these sequences grow to their ends. */
  hasRoomFor(grown: readonly { readonly sequence: Sequence; readonly end: number }[]): boolean {
    const owners = grown.flatMap(({ sequence, end }) => this.#newOwners(sequence, end));
    return this.#pool.free.every((free, worker) => owners.filter((owner) => owner === worker).length <= free);
  }

  /** The workers of the pages that a sequence lacks up to a position, in order. */
  #newOwners({ pageOffset: offset, pages: held }: Sequence, end: number): number[] {
    const count = Math.max(0, pagesFor(end) - held.length);
    return Array.from({ length: count }, (_, i) => this.#map.owner(offset, held.length + i));
  }

  /** Lets others use the full pages of a sequence that will never change again. */
  share(sequence: Sequence): void {
    const keys = sequence.keys(Math.floor(sequence.exact / PAGE_TOKENS));
    const { pageOffset: offset, pages, request } = sequence;
    this.#cache.insert(request.cacheSalt, keys, { offset, pages });
  }

  /** Takes all pages of a sequence back; the exact ones stay cached. */
  leave(sequence: Sequence): void {
    this.share(sequence);
    for (const page of sequence.pages) this.#pool.release(page);
    sequence.stop();
  }

  /**
   * Checks that every page has exactly the holders that are known, and lies where the page map looks for it.
   * @throws {EngineError} `invalid_step` naming the first page that has not
   */
  check(running: readonly Sequence[]): void {
    for (const { pageOffset, pages } of running) this.#checkPlaces(pageOffset, pages);
    const holders = new Uint32Array(this.#pool.size);
    const known = [...this.#cache.pages(), ...running.flatMap((sequence) => sequence.pages)];
    for (const page of known) holders[page] = (holders[page] ?? 0) + 1;
    holders.forEach((expected, page) => {
      const counted = this.#pool.holders(page);
      if (counted !== expected) throw unbalanced(`page ${page}: ${counted} holders counted, ${expected} known`);
    });
    const unheld = this.#pool.slices.map(() => 0);
    holders.forEach((count, page) => {
      const worker = this.#pool.workerOf(page);
      if (count === 0) unheld[worker] = at(unheld, worker) + 1;
    });
    const { free } = this.#pool;
    if (free.join() !== unheld.join()) throw unbalanced(`pages: [${free}] counted as free, [${unheld}] unheld`);
  }

  #checkPlaces(offset: number, pages: readonly number[]): void {
    for (const [i, page] of pages.entries()) {
      const [owner, worker] = [this.#map.owner(offset, i), this.#pool.workerOf(page)];
      if (owner !== worker) throw unbalanced(`page ${page}: it lies on worker ${worker}, not on ${owner}`);
    }
  }

  /** What a waiting sequence could start on now: a cached prefix or no pages; undefined while too little is left. */
  #start(sequence: Sequence, running: readonly Sequence[]): Prefix | undefined {
    const room = this.#roomBeside(running);
    const found = this.#match(sequence);
    // Where the next page can never be had, what there is of it is computed again from a better offset.
    if (found === undefined || !this.#fitsAlone(sequence.length, found.offset)) return this.#bestStart(sequence, room);
    for (const page of found.pages) if (this.#pool.isIdle(page)) lower(room, this.#pool.workerOf(page));
    return this.#fits(sequence, found, room) ? found : undefined;
  }

  /**
   * Of the offsets that fit, the next one in turn that adds hardly more than any other to the sum over the workers of
   * used pages² ÷ capacity: turns alone spread pages evenly, the sum accounts for sequences that left.
   */
  #bestStart(sequence: Sequence, room: readonly number[]): Prefix | undefined {
    const { slices, free, idle } = this.#pool;
    // A cached page counts half: it can be had, but is worth keeping.
    const used = slices.map((pages, worker) => pages - at(free, worker) - at(idle, worker) / 2);
    const { period } = this.#map;
    const { length, request: { promptTokens, maxTokens } } = sequence;
    // Few answers get as long as they may: only one that is long already must be able to from where it starts. One that
    // outgrows its offset after all is preempted, and then starts where it can end.
    const expected = Math.min(promptTokens.length + maxTokens, 2 * length);
    const offsets = Array.from({ length: period }, (_, turn) => (this.#lastOffset + 1 + turn) % period)
      .filter((offset) => this.#fits(sequence, { offset, pages: [] }, room) && this.#fitsAlone(expected, offset));
    const count = pagesFor(length);
    const costs = offsets.map((offset) =>
      total(slices.map((pages, worker) => {
        const own = this.#map.pagesBefore(worker, offset, count);
        return own * (2 * at(used, worker) + own) / pages;
      }))
    );
    // A page more or less on the smallest worker.
    const tolerance = 2 / Math.min(...slices);
    const best = Math.min(...costs) + tolerance;
    const offset = offsets.find((_, i) => (costs[i] ?? Infinity) <= best);
    return offset === undefined ? undefined : { offset, pages: [] };
  }

  #fits(sequence: Sequence, { offset, pages }: Prefix, room: readonly number[]): boolean {
    return pagesWithin(this.#map, { offset, pages: pages.length }, room) >= pagesFor(sequence.length);
  }

  /** Whether so many tokens fit from an offset on when no other sequence is there. */
  #fitsAlone(tokens: number, offset: number): boolean {
    return pagesWithin(this.#map, { offset, pages: 0 }, this.#pool.slices) >= pagesFor(tokens);
  }

  /** Pages of each worker that are available. */
  #available(): number[] {
    const { free, idle } = this.#pool;
    return free.map((pages, worker) => pages + at(idle, worker));
  }

  /**
   * The same, less what running sequences were promised at admission and have not taken yet, and the next page of each.
   */
  #roomBeside(running: readonly Sequence[]): number[] {
    const room = this.#available();
    for (const { pageOffset, pages, length } of running) {
      const end = pagesFor(length) + 1;
      for (const worker of room.keys()) {
        const expected = this.#map.pagesBefore(worker, pageOffset, end);
        lower(room, worker, expected - this.#map.pagesBefore(worker, pageOffset, pages.length));
      }
    }
    return room;
  }

  /** At least one token is left to compute: nothing could be drawn otherwise. */
  #match(sequence: Sequence): Prefix | undefined {
    const positions = Math.min(sequence.length - 1, sequence.restorable);
    const keys = sequence.keys(Math.floor(positions / PAGE_TOKENS));
    return this.#cache.match(sequence.request.cacheSalt, keys);
  }
}

function lower(counts: number[], worker: number, by = 1): void {
  counts[worker] = at(counts, worker) - by;
}

function unbalanced(what: string): EngineError {
  return new EngineError("invalid_step", `Cannot balance ${what}`);
}
