/**
 * Logits of sparse rows, kept until an audit compares those of full attention with them. Owns the memory they wait in,
 * and knows which sequence and position lies where; knows nothing of how audits come about.
 */

import { keptWidth } from "../../kernels/logits/keep_logits.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { bytesOf, type Tensor } from "../../kernels/tensor.ts";
import type { SequenceId } from "../span.ts";

/** A row of logits, and where in which sequence it stands. */
export interface PlacedRow {
  /** Of the logits. */
  readonly row: number;
  readonly sequence: SequenceId;
  readonly position: number;
}

/** A row of logits, and the row of `kept` that is its place. */
export interface KeptRow {
  readonly row: number;
  readonly place: number;
}

/** Rows that there is room for at first; doubled as needed. */
const FIRST_ROWS = 32;

/** More than this is not kept: audits of later rows then report no divergence. */
const MAX_BYTES = 2 ** 28;

/** Rows of f16 logits by sequence and position. */
export class DraftLogits {
  readonly #commands: Commands;
  readonly #vocabulary: number;
  #rows: Tensor | undefined;
  #capacity = 0;
  #free: number[] = [];
  readonly #places = new Map<SequenceId, Map<number, number>>();

  constructor(commands: Commands, vocabulary: number) {
    this.#commands = commands;
    this.#vocabulary = vocabulary;
  }

  /** Where the rows are kept, f16 [capacity, keptWidth(vocabulary)]; undefined before the first. */
  get kept(): Tensor | undefined {
    return this.#rows;
  }

  /**
   * Takes places for rows, to be written in this step. Whatever waits after the position of one of them is dropped: it
   * followed other tokens.
   * @returns of the rows that there is room for: which, and the place of each
   */
  keep(rows: readonly PlacedRow[]): KeptRow[] {
    return rows.flatMap(({ row, sequence, position }) => {
      this.#drop(sequence, (other) => other >= position);
      const place = this.#take();
      if (place === undefined) return [];
      const places = this.#places.get(sequence) ?? new Map<number, number>();
      this.#places.set(sequence, places.set(position, place));
      return [{ row, place }];
    });
  }

  /**
   * Finds what waits at the positions of rows, to be compared in this step: it waits no longer.
   * @returns of the rows that there is something for: which, and the place of each
   */
  compare(rows: readonly PlacedRow[]): KeptRow[] {
    const found = rows.flatMap(({ row, sequence, position }) => {
      const place = this.#places.get(sequence)?.get(position);
      return place === undefined ? [] : [{ row, place }];
    });
    for (const { sequence, position } of rows) this.#drop(sequence, (other) => other === position);
    return found;
  }

  /** Drops all rows of a sequence. */
  forget(sequence: SequenceId): void {
    this.#drop(sequence, () => true);
    this.#places.delete(sequence);
  }

  /** Drops everything and frees the memory; it can be used again. */
  close(): void {
    this.#commands.submit();
    if (this.#rows !== undefined) this.#commands.gpu.free(this.#rows);
    this.#rows = undefined;
    this.#capacity = 0;
    this.#free = [];
    this.#places.clear();
  }

  #drop(sequence: SequenceId, which: (position: number) => boolean): void {
    const places = this.#places.get(sequence) ?? new Map<number, number>();
    for (const [position, place] of places) {
      if (!which(position)) continue;
      places.delete(position);
      this.#free.push(place);
    }
  }

  /** A free place; undefined when there is none and no more memory is to be taken. */
  #take(): number | undefined {
    if (this.#free.length === 0) this.#grow();
    return this.#free.pop();
  }

  #grow(): void {
    const { gpu } = this.#commands;
    const width = keptWidth(this.#vocabulary);
    const rowBytes = width * bytesOf("f16");
    const most = Math.floor(Math.min(MAX_BYTES, gpu.info.maxBindingBytes) / rowBytes);
    const capacity = Math.min(most, Math.max(FIRST_ROWS, 2 * this.#capacity));
    if (capacity <= this.#capacity) return;
    const grown = gpu.tensor("logits of drafts", "f16", [capacity, width]);
    if (this.#rows !== undefined) {
      this.#commands.copy(this.#rows, grown, { byteLength: this.#capacity * rowBytes });
      // The copy must be under way before its source is destroyed.
      this.#commands.submit();
      gpu.free(this.#rows);
    }
    for (let place = capacity - 1; place >= this.#capacity; place--) this.#free.push(place);
    this.#rows = grown;
    this.#capacity = capacity;
  }
}
