/**
 * Copies of the keys and values of prompts that are being read, of the pages that other workers own: with them each worker
 * attends its own rows by itself, and what travels for a row is its key and value, once a layer, in place of its query to
 * all workers and a state from each of them. Pages come from those for replicas, and go where these are wanted. All workers
 * see the same steps and keep the same account. Knows pages and positions; knows nothing of what is sent.
 */

import { pagesFor, type SequenceId, type SequenceOpening } from "../span.ts";
import type { PageShare } from "../page_map.ts";

/** Rows of a sequence that follow each other. */
export interface PromptPiece {
  readonly sequence: { readonly open: Pick<SequenceOpening, "sequence" | "pageOffset"> };
  readonly from: number;
  readonly rows: number;
}

/** The copies of one sequence. */
interface CopiedPrompt {
  /** By worker: physical pages of this worker that hold that one's, in the order of its own. */
  readonly byOwner: readonly number[][];
  /** Pages without a use here: workers that own more of the sequence need fewer, but all take as many. */
  readonly spare: number[];
  /** Pages in all. */
  pages: number;
  /** Positions below are copied. */
  end: number;
}

/** Those of all sequences. */
export class PromptCopies {
  readonly #share: PageShare;
  readonly #free: number[];
  /** The sequence that was extended longest ago comes first. */
  readonly #bySequence = new Map<SequenceId, CopiedPrompt>();

  /** @param free pages of this worker, shared with others who take and give back */
  constructor(share: PageShare, free: number[]) {
    this.#share = share;
    this.#free = free;
  }

  /**
   * Takes pages for rows that are about to be computed, where none is free from sequences that do not stay.
   * @param staying of the same batch
   * @returns whether everything before these rows is copied and all of them find room; if not, nothing has changed
   */
  extend(pieces: readonly PromptPiece[], staying: readonly PromptPiece[] = pieces): boolean {
    if (!this.canExtend(pieces, staying)) return false;
    const wanted = this.#wantedPages(pieces);
    for (const [id] of this.#others(staying)) {
      if (this.#free.length >= wanted) break;
      this.release([id]);
    }
    for (const piece of pieces) this.#extend(piece);
    return true;
  }

  /** Whether `extend` would. */
  canExtend(pieces: readonly PromptPiece[], staying: readonly PromptPiece[]): boolean {
    const room = this.#others(staying).reduce((sum, [, { pages }]) => sum + pages, this.#free.length);
    const isReady = pieces.every(({ sequence: { open }, from }) => this.#endOf(open.sequence) >= from);
    return isReady && this.#wantedPages(pieces) <= room;
  }

  /** Physical pages that hold those of another worker, in the order of its own. */
  pagesOf(sequence: SequenceId, owner: number): readonly number[] {
    return this.#bySequence.get(sequence)?.byOwner[owner] ?? [];
  }

  /** What lies there from a position on is no longer a copy. */
  dropFrom(sequence: SequenceId, position: number): void {
    const copied = this.#bySequence.get(sequence);
    if (copied !== undefined) copied.end = Math.min(copied.end, position);
  }

  /** Forgets sequences. */
  release(sequences: Iterable<SequenceId>): void {
    for (const sequence of sequences) {
      const { byOwner = [], spare = [] } = this.#bySequence.get(sequence) ?? {};
      this.#free.push(...byOwner.flat(), ...spare);
      this.#bySequence.delete(sequence);
    }
  }

  /** Gives the pages of the sequence that waited longest back. @returns whether there was one */
  releaseOldest(): boolean {
    const [oldest] = this.#bySequence.keys();
    if (oldest === undefined) return false;
    this.release([oldest]);
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.release([...this.#bySequence.keys()]);
  }

  /** Sequences that may give way. */
  #others(staying: readonly PromptPiece[]): readonly (readonly [SequenceId, CopiedPrompt])[] {
    const ids = new Set(staying.map(({ sequence: { open } }) => open.sequence));
    return [...this.#bySequence].filter(([id]) => !ids.has(id));
  }

  #wantedPages(pieces: readonly PromptPiece[]): number {
    return pieces.reduce((sum, piece) => sum + this.#missingPages(piece), 0);
  }

  #endOf(sequence: SequenceId): number {
    return this.#bySequence.get(sequence)?.end ?? 0;
  }

  /** Pages that the worker which owns fewest of the sequence lacks: all take as many, so that all decide alike. */
  #missingPages({ sequence: { open }, from, rows }: PromptPiece): number {
    const { map } = this.#share;
    const pages = pagesFor(from + rows);
    const own = Array.from({ length: map.workers }, (_, worker) => map.pagesBefore(worker, open.pageOffset, pages));
    return Math.max(0, pages - Math.min(...own) - (this.#bySequence.get(open.sequence)?.pages ?? 0));
  }

  #extend(piece: PromptPiece): void {
    const { map, index } = this.#share;
    const { sequence: { open: { sequence, pageOffset } }, from, rows } = piece;
    const empty = () => ({ byOwner: Array.from({ length: map.workers }, () => []), spare: [], pages: 0, end: 0 });
    const copied: CopiedPrompt = this.#bySequence.get(sequence) ?? empty();
    const count = this.#missingPages(piece);
    copied.spare.push(...this.#free.splice(this.#free.length - count));
    copied.pages += count;
    for (const [owner, pages] of copied.byOwner.entries()) {
      const held = owner === index ? 0 : map.pagesBefore(owner, pageOffset, pagesFor(from + rows));
      if (held > pages.length) pages.push(...copied.spare.splice(copied.spare.length - (held - pages.length)));
    }
    copied.end = from + rows;
    this.#bySequence.delete(sequence);
    this.#bySequence.set(sequence, copied);
  }
}
