/**
 * Logits of sparse rows, kept until an audit compares those of full attention with them. Owns the memory they wait in,
 * and knows which sequence and position lies where; knows nothing of how audits come about.
 */

import { keepLogits, keptWidth } from "../../kernels/logits/keep_logits.ts";
import { klDivergence } from "../../kernels/logits/kl_divergence.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { bytesOf, type Tensor } from "../../kernels/tensor.ts";
import type { SequenceId } from "../span.ts";

/** A row of logits, and where in which sequence it stands. */
export interface PlacedRow {
  /** Of the logits. */
  readonly row: number;
  readonly sequence: SequenceId;
  readonly position: number;
}

/** Rows that there is room for at first; doubled as needed. */
const FIRST_ROWS = 32;

/** More than this is not kept: audits of what comes then say nothing of divergence. */
const MAX_BYTES = 2 ** 28;

/** Rows of f16 logits by sequence and position. */
export class DraftLogits {
  readonly #commands: Commands;
  readonly #vocabulary: number;
  readonly #scratch: Scratch;
  /** f16 [capacity, keptWidth(vocabulary)] */
  #rows: Tensor | undefined;
  #capacity = 0;
  #free: number[] = [];
  readonly #places = new Map<SequenceId, Map<number, number>>();

  constructor(commands: Commands, vocabulary: number) {
    this.#commands = commands;
    this.#vocabulary = vocabulary;
    this.#scratch = new Scratch(commands);
  }

  /**
   * Puts rows aside. Whatever waits behind the position of one of them is dropped: it followed other tokens.
   * @param logits f32 [rows, vocabulary]
   */
  keep(logits: Tensor, rows: readonly PlacedRow[]): void {
    const pairs = rows.flatMap(({ row, sequence, position }) => {
      this.#drop(sequence, (other) => other >= position);
      const place = this.#take();
      if (place === undefined) return [];
      const places = this.#places.get(sequence) ?? new Map<number, number>();
      this.#places.set(sequence, places.set(position, place));
      return [[row, place] as const];
    });
    const [kept, vocabulary] = [this.#rows, this.#vocabulary];
    if (kept === undefined || pairs.length === 0) return;
    const places = this.#upload("kept places", pairs);
    keepLogits(this.#commands, { logits, places, kept, count: pairs.length, vocabulary });
  }

  /**
   * Compares rows with what waits at their positions, which then waits no longer.
   * @param logits f32 [rows, vocabulary]
   * @returns of the rows that there was something for: their indices in `rows`, and KL(row ‖ kept) as f32 [their number]
   */
  compare(
    logits: Tensor,
    rows: readonly PlacedRow[],
  ): { readonly indices: readonly number[]; readonly divergences: Tensor } {
    const found = rows.flatMap(({ row, sequence, position }, index) => {
      const place = this.#places.get(sequence)?.get(position);
      return place === undefined ? [] : [{ index, row, place }];
    });
    const [kept, vocabulary, count] = [this.#rows, this.#vocabulary, found.length];
    const divergences = this.#scratch.take("divergences", "f32", [count]);
    if (kept !== undefined && count > 0) {
      const places = this.#upload("compared places", found.map(({ row, place }) => [row, place] as const));
      klDivergence(this.#commands, { logits, kept, places, divergences, count, vocabulary });
    }
    for (const { sequence, position } of rows) this.#drop(sequence, (other) => other === position);
    return { indices: found.map(({ index }) => index), divergences };
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
    this.#scratch.close();
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

  #upload(name: string, pairs: readonly (readonly [row: number, place: number])[]): Tensor {
    const tensor = this.#scratch.take(name, "u32", [pairs.length, 2]);
    this.#commands.write(tensor, Uint32Array.from(pairs.flat()));
    return tensor;
  }
}
