/**
 * Copies of rows that other workers of the group own, so that sparse layers find all of a selection on their own GPU: a
 * pool of pages after those of the slice, shared out among the sequences that were decoded last. Every worker keeps the
 * same account, as all see the same steps and the same selections. Knows pages, positions and slots; knows nothing of
 * what is sent.
 */

import { EngineError } from "../errors.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { replicaPagesOf, type ReplicaRoom, replicaRoom, type SparseExchange } from "../replica_plan.ts";
import { PAGE_TOKENS, type SequenceId, type SequenceOpening, type Span } from "../span.ts";
import type { KvSlice } from "./kv_slice.ts";
import type { PageShare } from "../page_map.ts";
import { PageCopies } from "./page_copies.ts";
import { SequenceReplicas } from "./sequence_replicas.ts";
import type { SequenceState } from "./sequences.ts";

/** What the replicas of a group are made with; the same for all workers, but for the slice. */
export interface ReplicasOptions {
  readonly slice: Pick<KvSlice, "pages" | "replicaPages" | "maxPages" | "writeTable">;
  readonly config: Pick<ModelConfig, "heads" | "kvHeads" | "headDim">;
  /** Of the worker that has fewest. */
  readonly pages: number;
  readonly exchange: SparseExchange;
  readonly share: PageShare;
  /** Whether all workers compute alike: else bits would depend on where a row attends. */
  readonly alike: boolean;
}

/** Replicas of all sequences of one epoch. */
export class Replicas {
  /** Of whole sequences; they take pages that no replica does. Undefined in a group whose workers do not compute alike. */
  readonly copies: PageCopies | undefined;
  readonly #options: ReplicasOptions;
  readonly #free: number[];
  /** The sequence that has waited longest comes first. */
  readonly #bySequence = new Map<SequenceId, SequenceReplicas>();

  /** @throws {EngineError} `invalid_step` when the slice has fewer pages for replicas than the group counts on */
  constructor(options: ReplicasOptions) {
    const { slice, pages } = options;
    if (pages > slice.replicaPages) {
      throw new EngineError(
        "invalid_step",
        `Cannot join a group: it counts on ${pages} pages for replicas, the slice has ${slice.replicaPages}`,
      );
    }
    this.#options = options;
    this.#free = Array.from({ length: pages }, (_, i) => slice.pages + pages - 1 - i);
    this.copies = options.alike ? new PageCopies(options.share, this.#free) : undefined;
  }

  /** Pages that the replicas of a batch may have together. */
  get pages(): number {
    return this.#options.pages;
  }

  /** What a sequence that was opened so takes; undefined: its sparse layers exchange states. */
  roomFor(opening: Pick<SequenceOpening, "sparse" | "sparseExchange">): ReplicaRoom | undefined {
    return replicaRoom(opening, this.#options);
  }

  /** Of a sequence; undefined while it has none. */
  of(sequence: SequenceId): SequenceReplicas | undefined {
    return this.#bySequence.get(sequence);
  }

  /** Before the spans of a step: what they rewrite, and everything after it, is no longer a copy. */
  invalidate(spans: readonly Pick<Span, "sequence" | "from" | "newPages">[]): void {
    for (const { sequence, from, newPages } of spans) {
      this.copies?.reassign(newPages);
      this.#bySequence.get(sequence)?.dropFrom(from);
      this.copies?.dropFrom(sequence, from);
    }
  }

  /**
   * Makes sure that sequences have replicas, and takes those of others where pages are short.
   * @param states whose rooms fit into the pool together
   */
  reserve(states: readonly SequenceState[]): void {
    // Those that stay move to the end first, so that none of them gives way to another.
    for (const { open: { sequence } } of states) {
      const present = this.#bySequence.get(sequence);
      if (present === undefined) continue;
      this.#bySequence.delete(sequence);
      this.#bySequence.set(sequence, present);
    }
    for (const state of states) if (!this.#bySequence.has(state.open.sequence)) this.#make(state);
  }

  /** Forgets sequences. */
  release(sequences: readonly SequenceId[]): void {
    this.copies?.release(sequences);
    this.#release(sequences);
  }

  #release(sequences: readonly SequenceId[]): void {
    for (const sequence of sequences) {
      this.#free.push(...this.#bySequence.get(sequence)?.pages.toReversed() ?? []);
      this.#bySequence.delete(sequence);
    }
  }

  /** Forgets everything: a step has failed, and what it has sent or written is unknown. */
  clear(): void {
    this.copies?.clear();
    this.#release([...this.#bySequence.keys()]);
  }

  #make({ open, slot }: SequenceState): void {
    const { sequence, sparse } = open;
    const { slice, config } = this.#options;
    const room = this.roomFor(open);
    if (room === undefined) throw new RangeError(`Cannot replicate for sequence ${sequence}: it exchanges states`);
    const count = replicaPagesOf(room);
    while ((this.copies?.freePages ?? this.#free.length) < count) {
      if (this.copies?.releaseOldest()) continue;
      const [oldest] = this.#bySequence.keys();
      if (oldest === undefined) throw new RangeError(`Cannot replicate: ${count} pages exceed ${this.#free.length}`);
      this.#release([oldest]);
    }
    const pages = this.#free.splice(this.#free.length - count).toReversed();
    slice.writeTable(slot, slice.maxPages, Uint32Array.from(pages));
    const firstRow = slice.maxPages * PAGE_TOKENS;
    this.#bySequence.set(sequence, new SequenceReplicas({ room, pages, firstRow, config, shape: sparse.heads }));
  }
}
