/**
 * Logits of sparse rows, kept until an audit compares those of full attention with them. Owns the memory they wait in,
 * and knows which sequence and position lies where; knows nothing of how audits come about.
 */

import { keptWidth } from "../../kernels/logits/keep_logits.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { SequenceId } from "../span.ts";
import { GrowingRows } from "./growing_rows.ts";

/** A row of logits, with its sequence and position. */
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
  readonly #rows: GrowingRows;
  readonly #places = new Map<SequenceId, Map<number, number>>();

  constructor(commands: Commands, vocabulary: number) {
    const width = keptWidth(vocabulary);
    const bounds = { first: FIRST_ROWS, maxBytes: MAX_BYTES };
    this.#rows = new GrowingRows(commands, { label: "logits of drafts", dtype: "f16", width, ...bounds });
  }

  /** Where the rows are kept, f16 [capacity, keptWidth(vocabulary)]; undefined before the first. */
  get kept(): Tensor | undefined {
    return this.#rows.tensor;
  }

  /**
   * Takes places for rows, to be written in this step. Whatever waits after the position of one of them is dropped: it
   * followed other tokens.
   * @returns of the rows that there is room for: which, and the place of each
   */
  keep(rows: readonly PlacedRow[]): KeptRow[] {
    return rows.flatMap(({ row, sequence, position }) => {
      this.#drop(sequence, (other) => other >= position);
      const place = this.#rows.take();
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
    this.#rows.close();
    this.#places.clear();
  }

  #drop(sequence: SequenceId, which: (position: number) => boolean): void {
    const places = this.#places.get(sequence) ?? new Map<number, number>();
    for (const [position, place] of places) {
      if (!which(position)) continue;
      places.delete(position);
      this.#rows.give(place);
    }
  }
}
