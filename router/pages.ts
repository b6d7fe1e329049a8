/**
 * The pool of physical KV pages: which are free, and how many hold each of the others. A page has holders (sequences,
 * and at most once the prefix cache); the last one to let go frees it. Knows page numbers; knows nothing of tokens.
 */

import { EngineError } from "../engine/errors.ts";

/** Accounts for `size` pages, numbered from 0. Every mistake in the accounting throws: it would corrupt answers. */
export class PagePool {
  readonly size: number;
  readonly #free: number[];
  readonly #holders: Uint32Array;
  readonly #cached: Uint8Array;
  #idle = 0;

  constructor(size: number) {
    this.size = size;
    // Reversed, so that the stack hands out low numbers first.
    this.#free = Array.from({ length: size }, (_, i) => size - 1 - i);
    this.#holders = new Uint32Array(size);
    this.#cached = new Uint8Array(size);
  }

  /** Pages that nobody holds. */
  get free(): number {
    return this.#free.length;
  }

  /** Pages that only the prefix cache holds: what eviction could free. */
  get idle(): number {
    return this.#idle;
  }

  /** Whether `count` pages are free right now, without evicting anything. */
  canTake(count: number): boolean {
    return count <= this.#free.length;
  }

  /**
   * Takes free pages; the caller is the one holder of each.
   * @throws {EngineError} `kv_exhausted` when fewer are free
   */
  take(count: number): number[] {
    if (!this.canTake(count)) {
      throw new EngineError("kv_exhausted", `Cannot take ${count} pages: only ${this.free} of ${this.size} are free`);
    }
    const taken = this.#free.splice(this.#free.length - count, count).reverse();
    for (const page of taken) this.#holders[page] = 1;
    return taken;
  }

  /** Holders of a page, the prefix cache included. */
  holders(page: number): number {
    return this.#holders[page] ?? 0;
  }

  /** Whether the prefix cache alone holds the page. */
  isIdle(page: number): boolean {
    return this.#cached[page] === 1 && this.#holders[page] === 1;
  }

  /** Adds a sequence as a holder. */
  retain(page: number): void {
    const holders = this.#held(page, "retain");
    if (this.isIdle(page)) this.#idle--;
    this.#holders[page] = holders + 1;
  }

  /** Removes a sequence as a holder; the last holder frees the page. */
  release(page: number): void {
    const holders = this.#held(page, "release");
    if (this.isIdle(page)) {
      throw new EngineError("invalid_step", `Cannot release page ${page}: only the prefix cache holds it`);
    }
    this.#holders[page] = holders - 1;
    if (holders === 1) this.#free.push(page);
    else if (this.isIdle(page)) this.#idle++;
  }

  /** Adds the prefix cache as a holder of a page that a sequence holds. */
  cache(page: number): void {
    const holders = this.#held(page, "cache");
    if (this.#cached[page] === 1) {
      throw new EngineError("invalid_step", `Cannot cache page ${page}: the prefix cache holds it already`);
    }
    this.#cached[page] = 1;
    this.#holders[page] = holders + 1;
  }

  /** Removes the prefix cache as a holder; frees the page when it was the last one. */
  uncache(page: number): void {
    if (this.#cached[page] !== 1) {
      throw new EngineError("invalid_step", `Cannot uncache page ${page}: the prefix cache does not hold it`);
    }
    if (this.isIdle(page)) this.#idle--;
    this.#cached[page] = 0;
    this.release(page);
  }

  #held(page: number, action: string): number {
    const holders = this.#holders[page];
    if (holders === undefined || holders === 0) {
      throw new EngineError("invalid_step", `Cannot ${action} page ${page}: nobody holds it (pool of ${this.size})`);
    }
    return holders;
  }
}
