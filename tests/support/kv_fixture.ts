/**
 * Sequences with random K and V in scattered pages, and the tables that kernels find them by.
 * Knows the layout of a pool; knows nothing of what is computed from it.
 */

import { type HeadShape, PAGE_ROWS, type PagedKv } from "../../kernels/attention/kv_pages.ts";
import { ROW_WORDS, type TableRow, writeTableRow } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { GpuFixture } from "./gpu_fixture.ts";
import { Random } from "./random.ts";

/** A pool on the GPU and its values on the host. */
export interface KvFixture {
  readonly paged: PagedKv;
  /** The K row of a local row, by value. */
  k(sequenceSlot: number, localRow: number, kvHead: number): Float32Array;
  /** The V row of a local row, by value. */
  v(sequenceSlot: number, localRow: number, kvHead: number): Float32Array;
}

/** Fills a pool with `slots` sequences of `length` rows each, whose pages are shuffled. */
export function kvFixture(
  gpu: GpuFixture,
  shape: HeadShape,
  { slots, length, seed }: { readonly slots: number; readonly length: number; readonly seed: number },
): KvFixture {
  const random = new Random(seed);
  const maxPages = Math.max(1, Math.ceil(length / PAGE_ROWS));
  // One page more than needed: physical page 0 belongs to no sequence, so that a wrong zero shows.
  const free = Array.from({ length: slots * maxPages }, (_, i) => i + 1);
  const table = Uint32Array.from(
    { length: slots * maxPages },
    () => free.splice(random.integer(free.length), 1)[0] ?? 0,
  );
  const size = (slots * maxPages + 1) * shape.kvHeads * PAGE_ROWS * shape.headDim;
  const keys = random.halves(size);
  const values = random.halves(size);
  const poolShape = [slots * maxPages + 1, shape.kvHeads, PAGE_ROWS, shape.headDim];
  const rowOf = (data: Float32Array) => (sequenceSlot: number, localRow: number, kvHead: number) => {
    const page = table[sequenceSlot * maxPages + Math.floor(localRow / PAGE_ROWS)] ?? NaN;
    const at = ((page * shape.kvHeads + kvHead) * PAGE_ROWS + localRow % PAGE_ROWS) * shape.headDim;
    return data.subarray(at, at + shape.headDim);
  };
  return {
    paged: {
      kv: { k: gpu.upload("f16", keys.halves, poolShape), v: gpu.upload("f16", values.halves, poolShape) },
      pageTable: gpu.upload("u32", table, [slots, maxPages]),
      maxPages,
    },
    k: rowOf(keys.values),
    v: rowOf(values.values),
  };
}

/** A row that attends densely to [0, kvLimit), unless told otherwise. */
export function tableRow(row: Partial<TableRow> & Pick<TableRow, "kvLimit">): TableRow {
  return {
    sequenceSlot: 0,
    sinks: 4,
    kvFrom: 0,
    appendRow: undefined,
    selected: 0,
    coverage: undefined,
    setShape: "kv_head",
    recent: 1,
    ...row,
  };
}

/** Rows as the tensor that kernels read. */
export function uploadRows(gpu: GpuFixture, rows: readonly TableRow[]): Tensor {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  rows.forEach((row, i) => writeTableRow(table, i, row));
  return gpu.upload("u32", table, [rows.length, ROW_WORDS]);
}
