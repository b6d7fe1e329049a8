/** Memory for the counts of sequences: one row of the vocabulary for each, taken on demand within a bound. */

import { GpuError } from "../../kernels/errors.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { SLOTS } from "../kv/kv_slice.ts";
import type { SequenceId } from "../span.ts";
import { GrowingRows } from "./growing_rows.ts";

/** Sequences that there is room for at first; doubled as needed. */
const FIRST_PLACES = 4;

/** Twice what the largest vocabularies need for as many sequences as can be open. */
const MAX_BYTES = 2 ** 28;

/** Whose counts these are. */
export interface CountPlacesOptions {
  readonly vocabulary: number;
  /** @default 256 MiB, or the most that one binding holds */
  readonly maxBytes?: number | undefined;
  /** Called for a sequence that lost its row to another. */
  readonly onLost: (sequence: SequenceId) => void;
}

/** A row of the counts, and the step that used it last. */
interface Place {
  readonly row: number;
  lastStep: number;
}

/** Rows of u32 counts by sequence. Where memory ends, those go that were not used for longest: they can be counted again. */
export class CountPlaces {
  readonly #commands: Commands;
  readonly #rows: GrowingRows;
  readonly #onLost: (sequence: SequenceId) => void;
  readonly #places = new Map<SequenceId, Place>();

  constructor(commands: Commands, { vocabulary, maxBytes = MAX_BYTES, onLost }: CountPlacesOptions) {
    this.#commands = commands;
    const bounds = { first: FIRST_PLACES, maxBytes, most: SLOTS };
    this.#rows = new GrowingRows(commands, { label: "counts of tokens", dtype: "u32", width: vocabulary, ...bounds });
    this.#onLost = onLost;
  }

  /** u32 [capacity, vocabulary]; undefined before the first is taken. */
  get tensor(): Tensor | undefined {
    return this.#rows.tensor;
  }

  /** The row of a sequence that has one, used by a step. */
  use(sequence: SequenceId, step: number): number {
    const place = this.#places.get(sequence);
    if (place === undefined) throw new RangeError(`Cannot count tokens: sequence ${sequence} has no place`);
    place.lastStep = step;
    return place.row;
  }

  /**
   * Writes the counts of a sequence into its row, which it takes if it has none.
   * @param words u32 [vocabulary]
   * @throws {GpuError} `out_of_gpu_memory` when all rows are used by the same step
   */
  write(sequence: SequenceId, step: number, words: Uint32Array<ArrayBuffer>): void {
    const row = this.#places.get(sequence)?.row ?? this.#take(step);
    this.#places.set(sequence, { row, lastStep: step });
    const { tensor, rowBytes } = this.#rows;
    if (tensor !== undefined) this.#commands.write(tensor, words, row * rowBytes);
  }

  /** Frees the row of a sequence, if it has one. */
  release(sequence: SequenceId): void {
    const place = this.#places.get(sequence);
    if (place !== undefined) this.#rows.give(place.row);
    this.#places.delete(sequence);
  }

  /** Frees the memory; it can be used again. */
  close(): void {
    this.#rows.close();
    this.#places.clear();
  }

  #take(step: number): number {
    const free = this.#rows.take();
    if (free !== undefined) return free;
    const idle = [...this.#places].filter(([, { lastStep }]) => lastStep !== step);
    const [oldest] = idle.sort(([, a], [, b]) => a.lastStep - b.lastStep);
    if (oldest === undefined) {
      const { capacity } = this.#rows;
      const why = `${capacity + 1} sequences of one step exceed the ${capacity} that there is room for`;
      throw new GpuError("out_of_gpu_memory", `Cannot count tokens: ${why}`);
    }
    this.#places.delete(oldest[0]);
    this.#onLost(oldest[0]);
    return oldest[1].row;
  }
}
