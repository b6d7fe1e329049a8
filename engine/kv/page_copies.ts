/**
 * Copies of the keys and values of whole pages that other workers own: with them each worker attends its own rows of a prompt
 * by itself, and what travels for a row is its key and value, once a layer, in place of its query to all workers and a state
 * from each of them. Full pages may belong to several sequences, and outlive all of them as the prefix cache does: their
 * copies wait for the next one. Room comes from the pages for replicas, and goes where these are wanted. All workers see the
 * same steps and keep the same account. Knows pages and positions; knows nothing of what is sent.
 */

import { PAGE_TOKENS, pagesFor, type SequenceId, type SequenceOpening } from "../span.ts";
import type { PageShare } from "../page_map.ts";

/** Rows of a sequence that follow each other. */
export interface CopiedPiece {
  readonly sequence: {
    readonly open: Pick<SequenceOpening, "sequence" | "pageOffset" | "prefixPages">;
    /** Of all workers. */
    readonly physicalPages: readonly number[];
  };
  readonly from: number;
  readonly rows: number;
}

/** A page, as every worker knows it. */
interface PageCopy {
  readonly page: number;
  readonly owner: number;
  /** Physical page of this worker that holds the copy; undefined where it owns the page itself. */
  readonly place: number | undefined;
  /** Sequences that use it. */
  users: number;
  /** That are copied, from its first on. */
  rows: number;
}

/** The copies of one sequence, from its first page on. */
interface CopiedSequence {
  readonly copies: PageCopy[];
  /** By worker: physical pages of this worker that hold that one's, in the order of its own. */
  readonly byOwner: readonly number[][];
  /** Positions below are copied. */
  end: number;
}

/** Those of all sequences. */
export class PageCopies {
  readonly #share: PageShare;
  readonly #free: number[];
  readonly #byPage = new Map<number, PageCopy>();
  /** Full ones that no sequence uses; what became so first comes first. */
  readonly #unused = new Set<PageCopy>();
  /** The sequence that was extended longest ago comes first. */
  readonly #bySequence = new Map<SequenceId, CopiedSequence>();
  /** By worker: pages that it has taken. */
  readonly #taken: number[];

  /** @param free pages of this worker, shared with others who take and give back as many on every worker */
  constructor(share: PageShare, free: number[]) {
    this.#share = share;
    this.#free = free;
    this.#taken = Array.from({ length: share.map.workers }, () => 0);
  }

  /** Pages that every worker has free. */
  get freePages(): number {
    return Math.min(...this.#taken.map((_, worker) => this.#room(worker)));
  }

  /**
   * Takes pages for rows that are about to be computed, where none is free from sequences that do not stay.
   * @param staying of the same batch, and of those under way
   * @returns whether everything before these rows is copied and all of them find room; if not, nothing has changed
   */
  extend(pieces: readonly CopiedPiece[], staying: readonly CopiedPiece[] = pieces): boolean {
    if (!this.canExtend(pieces, staying)) return false;
    const wanted = this.#wantedPages(pieces);
    const ids = idsOf(staying);
    while (!this.#fits(wanted)) this.#giveWay(ids);
    for (const piece of pieces) this.#extend(piece);
    return true;
  }

  /** Whether `extend` would. */
  canExtend(pieces: readonly CopiedPiece[], staying: readonly CopiedPiece[]): boolean {
    if (pieces.some((piece) => this.#of(piece).end < piece.from)) return false;
    const wanted = this.#wantedPages(pieces);
    return this.#fits(wanted) || this.#fits(wanted, this.#yielding(idsOf(staying)));
  }

  /** Physical pages that hold those of another worker, in the order of its own. */
  placesOf(sequence: SequenceId, owner: number): readonly number[] {
    return this.#bySequence.get(sequence)?.byOwner[owner] ?? [];
  }

  /** Drops the copies of a sequence's rows from a position on. */
  dropFrom(sequence: SequenceId, position: number): void {
    const copied = this.#bySequence.get(sequence);
    if (copied === undefined || position >= copied.end) return;
    setRows(copied, Math.floor(position / PAGE_TOKENS), position);
    copied.end = position;
  }

  /** Pages were given to a sequence, which will fill them with other rows. */
  reassign(pages: Iterable<number>): void {
    for (const page of pages) {
      const copy = this.#byPage.get(page);
      if (copy === undefined) continue;
      copy.rows = 0;
      if (copy.users === 0) this.#drop(copy);
    }
  }

  /** Forgets sequences that are over; their full pages stay copied while there is room. */
  release(sequences: Iterable<SequenceId>): void {
    for (const sequence of sequences) {
      for (const copy of this.#letGo(sequence)) {
        if (copy.rows === PAGE_TOKENS) this.#unused.add(copy);
        else this.#drop(copy);
      }
    }
  }

  /** Gives back what has waited longest. @returns whether there was anything */
  releaseOldest(): boolean {
    if (this.#byPage.size === 0) return false;
    this.#giveWay(new Set());
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.#bySequence.clear();
    for (const copy of [...this.#byPage.values()]) this.#drop(copy);
  }

  /** @returns the copies that no other sequence uses */
  #letGo(sequence: SequenceId): readonly PageCopy[] {
    const { copies = [] } = this.#bySequence.get(sequence) ?? {};
    this.#bySequence.delete(sequence);
    return copies.filter((copy) => --copy.users === 0);
  }

  /** A sequence that is new here begins with the copies of its prefix, if all of that is copied. */
  #of({ sequence: { open } }: CopiedPiece): CopiedSequence {
    const known = this.#bySequence.get(open.sequence);
    if (known !== undefined) return known;
    const copied: CopiedSequence = { copies: [], byOwner: this.#taken.map(() => []), end: 0 };
    this.#bySequence.set(open.sequence, copied);
    const prefix = Array.from(open.prefixPages, (page) => this.#byPage.get(page));
    if (prefix.some((copy) => copy?.rows !== PAGE_TOKENS)) return copied;
    for (const copy of prefix) if (copy !== undefined) this.#use(copied, copy);
    copied.end = prefix.length * PAGE_TOKENS;
    return copied;
  }

  #extend(piece: CopiedPiece): void {
    const { map } = this.#share;
    const { sequence: { open: { sequence, pageOffset }, physicalPages }, from, rows } = piece;
    const copied = this.#of(piece);
    for (let index = copied.copies.length; index < pagesFor(from + rows); index++) {
      const page = physicalPages[index];
      if (page === undefined) throw new RangeError(`Cannot copy page ${index} of sequence ${sequence}: it has none`);
      this.#use(copied, this.#byPage.get(page) ?? this.#make(page, map.owner(pageOffset, index)));
    }
    copied.end = from + rows;
    setRows(copied, Math.floor(from / PAGE_TOKENS), copied.end);
    this.#bySequence.delete(sequence);
    this.#bySequence.set(sequence, copied);
  }

  #use(copied: CopiedSequence, copy: PageCopy): void {
    copy.users++;
    this.#unused.delete(copy);
    copied.copies.push(copy);
    if (copy.place !== undefined) copied.byOwner[copy.owner]?.push(copy.place);
  }

  #make(page: number, owner: number): PageCopy {
    const place = owner === this.#share.index ? undefined : this.#free.pop();
    if (place === undefined && owner !== this.#share.index) throw new RangeError(`Cannot copy page ${page}: no room`);
    const copy = { page, owner, place, users: 0, rows: 0 };
    this.#byPage.set(page, copy);
    this.#count(owner, 1);
    return copy;
  }

  #drop(copy: PageCopy): void {
    if (copy.place !== undefined) this.#free.push(copy.place);
    this.#byPage.delete(copy.page);
    this.#unused.delete(copy);
    this.#count(copy.owner, -1);
  }

  #count(owner: number, pages: number): void {
    for (const worker of this.#taken.keys()) if (worker !== owner) this.#taken[worker] = this.#takenBy(worker) + pages;
  }

  #takenBy(worker: number): number {
    return this.#taken[worker] ?? 0;
  }

  /** Pages that a worker has free: what all others take they take on all alike. */
  #room(worker: number): number {
    return this.#free.length + this.#takenBy(this.#share.index) - this.#takenBy(worker);
  }

  /** Gives back the page that has been unused longest, or has the sequence that was extended longest ago give its pages up. */
  #giveWay(staying: ReadonlySet<SequenceId>): void {
    const [unused] = this.#unused;
    if (unused !== undefined) return this.#drop(unused);
    const oldest = this.#bySequence.keys().find((sequence) => !staying.has(sequence));
    if (oldest === undefined) throw new RangeError("Cannot make room for copies: all that are there stay");
    // It continues, and may overwrite its rows: copies kept of them would be out of date.
    for (const copy of this.#letGo(oldest)) this.#drop(copy);
  }

  #fits(wanted: readonly number[], yielding: readonly number[] = []): boolean {
    return wanted.every((pages, worker) => pages <= this.#room(worker) + (yielding[worker] ?? 0));
  }

  /** By worker: pages that it lacks. */
  #wantedPages(pieces: readonly CopiedPiece[]): readonly number[] {
    const wanted = this.#taken.map(() => 0);
    for (const piece of pieces) {
      const { sequence: { open: { pageOffset }, physicalPages }, from, rows } = piece;
      for (let index = this.#of(piece).copies.length; index < pagesFor(from + rows); index++) {
        if (this.#byPage.has(physicalPages[index] ?? -1)) continue;
        const owner = this.#share.map.owner(pageOffset, index);
        for (const worker of wanted.keys()) if (worker !== owner) wanted[worker] = (wanted[worker] ?? 0) + 1;
      }
    }
    return wanted;
  }

  /** By worker: pages that it gets back when all but some sequences give theirs up. */
  #yielding(staying: ReadonlySet<SequenceId>): readonly number[] {
    const kept = new Set([...staying].flatMap((sequence) => this.#bySequence.get(sequence)?.copies ?? []));
    const pages = this.#taken.map(() => 0);
    for (const copy of this.#byPage.values()) {
      if (kept.has(copy)) continue;
      for (const worker of pages.keys()) if (worker !== copy.owner) pages[worker] = (pages[worker] ?? 0) + 1;
    }
    return pages;
  }
}

function idsOf(pieces: readonly CopiedPiece[]): ReadonlySet<SequenceId> {
  return new Set(pieces.map(({ sequence: { open } }) => open.sequence));
}

/** Of the pages from one on, the rows below a position are copied. */
function setRows({ copies }: CopiedSequence, fromPage: number, end: number): void {
  for (let index = fromPage; index < copies.length; index++) {
    const copy = copies[index];
    if (copy !== undefined) copy.rows = Math.min(PAGE_TOKENS, Math.max(0, end - index * PAGE_TOKENS));
  }
}
