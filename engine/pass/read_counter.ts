/**
 * How much the adaptive rows of a step read in sparse layers, which only the choice of their positions decides: counted
 * on the GPU where it stays there, and from the chosen lists in a group. Knows rows and counts; knows nothing of values.
 */

import { at } from "../../kernels/at.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { setsOf } from "../../kernels/attention/row_table.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { BatchRow, RowBatch } from "../row_batch.ts";

/** Where the rows of one batch are counted. */
export interface BatchCounter {
  /** u32 [rows of all batches with sparse rows]: positions chosen for a row, over its sets, once for each layer that reads them. */
  readonly counts: Tensor;
  /** Of the batch's first row; undefined for a batch without sparse rows. */
  readonly at: number;
  /** Counts on the host what was chosen for a row of the batch, over its sets. */
  add(row: number, positions: number): void;
}

/** Counts of one step; made before anything of it is recorded. */
export class ReadCounter {
  readonly #model: LoadedModel;
  readonly #batches: readonly RowBatch[];
  readonly #counts: Tensor;
  /** Of the group's lists; stays zero while the choice is made on the GPU alone. */
  readonly #listed: Uint32Array;
  readonly #starts: readonly number[];

  constructor(model: LoadedModel, batches: readonly RowBatch[]) {
    this.#model = model;
    this.#batches = batches;
    const counting = batches.some(({ sparse }) => sparse.some(isAdaptive));
    let rows = 0;
    this.#starts = batches.map((batch) => {
      const start = rows;
      if (counting && batch.sparse.length > 0) rows += batch.rows;
      return start;
    });
    this.#listed = new Uint32Array(rows);
    const { commands, scratch } = model;
    this.#counts = scratch.take("read counts", "u32", [rows]);
    if (rows === 0) return;
    commands.write(this.#counts, new Uint32Array(rows));
  }

  /** For the batch with that index. */
  of(batch: number): BatchCounter {
    const first = at(this.#starts, batch);
    // When no row is adaptive there is no place for any, and nothing is kept.
    const add = (row: number, positions: number) => {
      this.#listed[first + row] = (this.#listed[first + row] ?? 0) + positions;
    };
    return { counts: this.#counts, at: first, add };
  }

  /** What must be read back once all batches were submitted; nothing when no row is adaptive, or a group has chosen. */
  get requests(): readonly ReadRequest[] {
    const isOnGpu = this.#listed.length > 0 && this.#batches.some((batch) => this.#isOnGpu(batch));
    return isOnGpu ? [{ tensor: this.#counts, byteLength: this.#listed.byteLength }] : [];
  }

  /**
   * KV rows that one KV head read over all layers, on average over the sets, of each adaptive span.
   * @param read what `requests` gave
   * @returns by index of the span in the step
   */
  rowsRead([bytes]: readonly Uint8Array<ArrayBuffer>[]): ReadonlyMap<number, number> {
    const counted = bytes === undefined ? this.#listed : new Uint32Array(bytes.buffer);
    const { config, roles = [] } = this.#model;
    const whole = roles.filter((role) => role !== "sparse").length;
    const entries = this.#batches.flatMap((batch, index) =>
      batch.sparse.filter(isAdaptive).map(({ row, span, position, sequence }): [number, number] => {
        const count = at(this.#isOnGpu(batch) ? counted : this.#listed, at(this.#starts, index) + row);
        return [span, whole * (position + 1) + count / setsOf(sequence.open.sparse.heads, config)];
      })
    );
    return new Map(entries);
  }

  /** Whether the choice for its rows stays on the GPU of this worker. */
  #isOnGpu({ computer }: RowBatch): boolean {
    const { map, index } = this.#model.share;
    return map.workers === 1 || computer === index;
  }
}

function isAdaptive({ sequence }: BatchRow): boolean {
  return sequence.open.sparse.coverage !== undefined;
}
