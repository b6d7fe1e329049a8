/**
 * The pool of physical KV pages: which are free, and how many hold each of the others. A page lies on one worker; pages
 * are numbered through, worker by worker. It has holders (sequences, and at most once the prefix cache); the last one to
 * let go frees it. Knows page numbers; knows nothing of tokens.
 */

import { at } from "../../kernels/at.ts";
import { EngineError } from "../../engine/errors.ts";

/** Accounts for the pages of all workers. Every mistake in the accounting throws: it would corrupt answers. */
export class PagePool {
  /** Pages of each worker. */
  readonly slices: readonly number[];
  readonly size: number;
  readonly #workers: Uint16Array;
  /** Free pages of each worker. */
  readonly #free: readonly number[][];
  /** Pages of each worker that only the prefix cache holds. */
  readonly #idle: number[];
  readonly #holders: Uint32Array;
  readonly #cached: Uint8Array;

  constructor(slices: readonly number[]) {
    this.slices = slices;
    this.size = total(slices);
    this.#workers = new Uint16Array(this.size);
    this.#holders = new Uint32Array(this.size);
    this.#cached = new Uint8Array(this.size);
    this.#idle = slices.map(() => 0);
    let base = 0;
    this.#free = slices.map((pages, worker) => {
      this.#workers.fill(worker, base, base += pages);
      const last = base - 1;
      // Reversed, so that the stack hands out low numbers first.
      return Array.from({ length: pages }, (_, i) => last - i);
    });
  }

  /** Free pages of each worker. */
  get free(): readonly number[] {
    return this.#free.map((pages) => pages.length);
  }

  /** Pages that only the prefix cache holds, of each worker: what eviction could free. */
  get idle(): readonly number[] {
    return this.#idle;
  }

  /** The worker that a page lies on. */
  workerOf(page: number): number {
    return this.#workers[page] ?? this.#outside(`page ${page}`);
  }

  /** Whether a page of each of these workers is free right now, without evicting anything. */
  canTake(owners: readonly number[]): boolean {
    const wanted = this.slices.map(() => 0);
    for (const worker of owners) wanted[worker] = (wanted[worker] ?? 0) + 1;
    return this.#free.every((pages, worker) => (wanted[worker] ?? 0) <= pages.length);
  }

  /**
   * Takes a free page of each of these workers, in this order; the caller is the one holder of each.
   * @throws {EngineError} `kv_exhausted` when one has fewer; none is taken then
   */
  take(owners: readonly number[]): number[] {
    if (!this.canTake(owners)) {
      const message = `Cannot take ${owners.length} pages: only ${this.free} of ${this.slices} are free`;
      throw new EngineError("kv_exhausted", message);
    }
    return owners.map((worker) => {
      const page = this.#free[worker]?.pop() ?? this.#outside(`worker ${worker}`);
      this.#holders[page] = 1;
      return page;
    });
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
    if (this.isIdle(page)) this.#countIdle(page, -1);
    this.#holders[page] = holders + 1;
  }

  /** Removes a sequence as a holder; the last holder frees the page. */
  release(page: number): void {
    const holders = this.#held(page, "release");
    if (this.isIdle(page)) {
      throw new EngineError("invalid_step", `Cannot release page ${page}: only the prefix cache holds it`);
    }
    this.#holders[page] = holders - 1;
    if (holders === 1) this.#free[this.workerOf(page)]?.push(page);
    else if (this.isIdle(page)) this.#countIdle(page, 1);
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
    if (this.isIdle(page)) this.#countIdle(page, -1);
    this.#cached[page] = 0;
    this.release(page);
  }

  #countIdle(page: number, change: 1 | -1): void {
    const worker = this.workerOf(page);
    this.#idle[worker] = at(this.#idle, worker) + change;
  }

  #held(page: number, action: string): number {
    const holders = this.#holders[page];
    if (holders === undefined || holders === 0) {
      throw new EngineError("invalid_step", `Cannot ${action} page ${page}: it is free (pool of ${this.size})`);
    }
    return holders;
  }

  #outside(what: string): never {
    throw new EngineError("invalid_step", `Cannot find ${what}: the pool has slices of [${this.slices}] pages`);
  }
}

/** Over all workers. */
export function total(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}
