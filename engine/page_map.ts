/**
 * Which worker of a group owns which page of a sequence, and where the page lies among that worker's own: a pure
 * function of the workers' weights and the sequence's offset, with its inverse. Knows indices; knows nothing of memory.
 *
 * Owners follow a table made by smooth weighted round robin, repeated for ever: any run of pages is shared out nearly in
 * proportion to the weights, so growth, hot spans and prefill stay balanced.
 */

import { at } from "../kernels/at.ts";
import { PAGE_TOKENS } from "./span.ts";

/** Longest table; weights finer than this are rounded. */
const MAX_TABLE = 256;

/** Places of a group's pages. Pages and positions of a sequence are global; an index into a worker's own is local. */
export class PageMap {
  /** Owner of each entry. */
  readonly #table: readonly number[];
  /** Entries of each worker, ascending. */
  readonly #entries: readonly (readonly number[])[];
  /** `#before[worker][n]`: entries of the worker among the first n of the table. */
  readonly #before: readonly (readonly number[])[];
  /** Number of each worker's first physical page, and after them the number of all pages. */
  readonly #bases: readonly number[];

  /**
   * @param slices of the workers in pages, at least one, all positive: their weights. Physical pages are numbered through,
   * worker by worker
   */
  constructor(slices: readonly number[]) {
    if (slices.length === 0 || slices.some((pages) => !(pages > 0))) {
      throw new RangeError(`Cannot map pages: slices must be positive, given [${slices}]`);
    }
    this.#bases = slices.reduce<number[]>((bases, pages) => [...bases, (bases.at(-1) ?? 0) + pages], [0]);
    this.#table = smoothTable(integerWeights(slices));
    this.#entries = slices.map((_, worker) => this.#table.flatMap((owner, i) => (owner === worker ? [i] : [])));
    this.#before = slices.map((_, worker) => {
      const counts = [0];
      for (const owner of this.#table) counts.push((counts.at(-1) ?? 0) + (owner === worker ? 1 : 0));
      return counts;
    });
  }

  get workers(): number {
    return this.#entries.length;
  }

  /** Offsets from 0 up to this one (exclusive) give all different maps. */
  get period(): number {
    return this.#table.length;
  }

  /** Physical pages of all workers. */
  get pages(): number {
    return at(this.#bases, this.workers);
  }

  /** Number of a worker's first physical page; the worker itself counts its pages from 0. */
  base(worker: number): number {
    return at(this.#bases, worker);
  }

  /** Whether a physical page lies on a worker. */
  isOn(worker: number, physicalPage: number): boolean {
    return physicalPage >= this.base(worker) && physicalPage < this.base(worker + 1);
  }

  /** Worker that owns a page of a sequence. */
  owner(offset: number, page: number): number {
    return at(this.#table, (offset + page) % this.#table.length);
  }

  /** Pages that a worker owns among the first `pages` of a sequence; for a page of its own, that page's local index. */
  pagesBefore(worker: number, offset: number, pages: number): number {
    return this.#owned(worker, offset + pages) - this.#owned(worker, offset);
  }

  /** The inverse: the page of a sequence that lies at a local index of a worker. */
  globalPage(worker: number, offset: number, localPage: number): number {
    const entries = at(this.#entries, worker);
    const nth = this.#owned(worker, offset) + localPage;
    const entry = at(entries, nth % entries.length);
    return Math.floor(nth / entries.length) * this.#table.length + entry - offset;
  }

  /** Rows that a worker holds of the first `tokens` positions of a sequence: they are its local rows [0, here). */
  localRows(worker: number, offset: number, tokens: number): number {
    const page = Math.floor(tokens / PAGE_TOKENS);
    const rest = this.owner(offset, page) === worker ? tokens % PAGE_TOKENS : 0;
    return this.pagesBefore(worker, offset, page) * PAGE_TOKENS + rest;
  }

  /** The position that a local row of a worker holds. */
  globalRow(worker: number, offset: number, localRow: number): number {
    const page = this.globalPage(worker, offset, Math.floor(localRow / PAGE_TOKENS));
    return page * PAGE_TOKENS + localRow % PAGE_TOKENS;
  }

  /** Entries of a worker among the first n of the endless table. */
  #owned(worker: number, n: number): number {
    const perTurn = at(this.#entries, worker).length;
    return Math.floor(n / this.#table.length) * perTurn + at(at(this.#before, worker), n % this.#table.length);
  }
}

/** A worker's place in its group. */
export interface PageShare {
  readonly index: number;
  readonly map: PageMap;
}

/** Whole numbers in the proportion of the weights, at least 1 each, with the smallest sum that keeps it. */
function integerWeights(weights: readonly number[]): number[] {
  const smallest = Math.min(...weights);
  const ratios = weights.map((weight) => weight / smallest);
  const isWhole = ratios.every((ratio) => Math.abs(ratio - Math.round(ratio)) < 1e-9);
  const sum = ratios.reduce((a, b) => a + b, 0);
  const scale = isWhole && sum <= MAX_TABLE ? 1 : Math.max(weights.length, MAX_TABLE - weights.length) / sum;
  return ratios.map((ratio) => Math.max(1, Math.round(ratio * scale)));
}

/** Each turn, everyone gains its weight; the richest gets the entry and pays the sum. Ties go to the lower index. */
function smoothTable(weights: readonly number[]): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  const credit = weights.map(() => 0);
  return Array.from({ length: sum }, () => {
    let richest = 0;
    for (const [worker, weight] of weights.entries()) {
      credit[worker] = at(credit, worker) + weight;
      if (at(credit, worker) > at(credit, richest)) richest = worker;
    }
    credit[richest] = at(credit, richest) - sum;
    return richest;
  });
}
