/**
 * The table of a step's rows: what every row-wise kernel must know about a row, written by the host once a step.
 * Knows rows, page tables and budgets; knows nothing of layers or models.
 *
 * "Local" is an index into the sequence's own pages on this worker; with one worker it is the position itself.
 */

/** Words of one row. */
export const ROW_WORDS = 8;

/** Which heads share a set of selected positions: one set per KV head, per query head (as in the paper), or one for all. */
export type SetShape = "kv_head" | "query_head" | "all_heads";

/** The number of each shape on the GPU. */
export const SET_SHAPE_CODE = { kv_head: 0, query_head: 1, all_heads: 2 } as const satisfies Record<SetShape, number>;

/** Bits of a shape's number. */
const SHAPE_BITS = 2;

/** Fills up a set of positions: no row lies there. */
export const NO_POSITION = 0xffffffff;

/** On the GPU: this worker does not keep the row's K and V. */
const APPEND_NOWHERE = 0xffffffff;

/** One row of a step. */
export interface TableRow {
  /** Row of the page table. */
  readonly sequenceSlot: number;
  /** First local rows that are always selected. */
  readonly sinks: number;
  /** First visible local row: 0, or the start of the sliding window. */
  readonly kvFrom: number;
  /** End of the visible local rows: [kvFrom, kvLimit). */
  readonly kvLimit: number;
  /** Local row that takes this row's K and V; undefined when another worker owns it. */
  readonly appendRow: number | undefined;
  /** Budget of positions of a sparse row, which reads at most min(selected, kvLimit) of them; 0 for a dense row. */
  readonly selected: number;
  /**
   * Of an adaptive row, which reads only as many positions as have this mass together (`neededMass`, below 2^30);
   * undefined: it reads its budget.
   */
  readonly coverage: number | undefined;
  readonly setShape: SetShape;
  /** Last visible local rows that are always selected. */
  readonly recent: number;
}

/** Writes row `index` of a host table of `ROW_WORDS` words a row. */
export function writeTableRow(table: Uint32Array, index: number, row: TableRow): void {
  table.set([
    row.sequenceSlot,
    row.sinks,
    row.kvFrom,
    row.kvLimit,
    row.appendRow ?? APPEND_NOWHERE,
    row.selected,
    // Two numbers in one word: a ninth word would cost every reader of a row 16 bytes more.
    SET_SHAPE_CODE[row.setShape] + (row.coverage ?? 0) * 2 ** SHAPE_BITS,
    row.recent,
  ], index * ROW_WORDS);
}

/** Has a row of a table keep its K and V at another local row. */
export function setAppendRow(table: Uint32Array, index: number, localRow: number): void {
  table[index * ROW_WORDS + 4] = localRow;
}

/** Has a row of a table see the local rows [0, end). */
export function setVisibleRows(table: Uint32Array, index: number, end: number): void {
  table.set([0, end], index * ROW_WORDS + 2);
}

/** Sets of positions that a row of this shape has. */
export function setsOf(shape: SetShape, heads: { readonly heads: number; readonly kvHeads: number }): number {
  if (shape === "all_heads") return 1;
  return shape === "kv_head" ? heads.kvHeads : heads.heads;
}

/** WGSL that reads the binding `rowTable: array<vec4<u32>>` into a `Row`. */
export const ROW_TABLE_WGSL = /* wgsl */ `
const APPEND_NOWHERE = ${APPEND_NOWHERE}u;
struct Row {
  sequenceSlot: u32, sinks: u32, kvFrom: u32, kvLimit: u32,
  appendRow: u32, selected: u32, setShape: u32, recent: u32,
  // 0: not adaptive.
  coverage: u32,
}
fn readRow(index: u32) -> Row {
  let a = rowTable[2u * index];
  let b = rowTable[2u * index + 1u];
  return Row(a.x, a.y, a.z, a.w, b.x, b.y, b.z & ${2 ** SHAPE_BITS - 1}u, b.w, b.z >> ${SHAPE_BITS}u);
}
`;
