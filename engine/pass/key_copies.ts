/**
 * What the rows of a batch see and append, where the keys and values of all workers are on this one: each worker's slice apart, the
 * own one and the copies of the others', page by page as on the worker that owns them. Knows rows and tables; knows nothing of
 * layers.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { PageMap, type PageShare } from "../page_map.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import { tableRow } from "./table_row.ts";
import { type KeyPlaces, placeKeys, type UnsentKeys } from "./key_places.ts";
import { longestBucket } from "./selection_buffers.ts";
import { type SliceOrder, uploadSliceOrder } from "./slice_order.ts";
import { tableWidthOf } from "./whole_pages.ts";

/** One worker's slice as this worker reads it. */
export interface SliceView {
  /** Index of the worker that owns it. */
  readonly owner: number;
  /** u32 [computed, 8]: what own rows see of it; undefined for the own slice, of which the pass has a table. */
  readonly rowTable: Tensor | undefined;
  readonly pageTable: Tensor;
  readonly maxPages: number;
}

/** What the worker needs that computes a batch for all. */
export interface KeyCopies extends KeyPlaces {
  /** By worker. */
  readonly views: readonly SliceView[];
  /** Rows of each piece, back to back. */
  readonly runs: readonly RowRange[];
  /** At least the rows that any of them visits in any slice. */
  readonly longest: number;
  /** u32 [rows, 8]: what each row sees and appends of all pages, and how many positions it chooses of them. */
  readonly wholeTable: Tensor;
  /** Undefined where no row chooses. */
  readonly order: SliceOrder | undefined;
  readonly unsent: UnsentKeys;
  /** Index of the batch in its step: working memory that lasts beyond the batch is its own. */
  readonly batch: number;
}

/** Where the copies of a batch's sequences lie. */
export interface CopyPlaces {
  /** u32 [sequences · peers, maxPages] */
  readonly table: Tensor;
  readonly maxPages: number;
  /** Row of the table for a piece of the batch and the owner of its pages. */
  readonly slotOf: (number: number, owner: number) => number;
}

/** A row of a batch and the piece that it belongs to. */
export interface OwnedRow {
  readonly piece: SequencePiece;
  /** Place of the piece in the batch. */
  readonly number: number;
  readonly position: number;
}

/**
 * Uploads where the rows of a batch lie that this worker computes for all. There must be room for their copies.
 * @param step.unsent what it has sent so far
 * @param step.batch index of the batch in it
 */
export function takeKeyCopies(
  model: LoadedModel,
  batch: RowBatch,
  step: Pick<KeyCopies, "unsent" | "batch">,
): KeyCopies {
  const rows = rowsOf(batch);
  return {
    ...step,
    ...placeKeys(model, batch, step.batch),
    views: viewsOf(model, rows, copyPlaces(model, batch)),
    runs: batch.pieces.map(({ first, rows }) => ({ first, rows })),
    longest: longestVisit(model, batch),
    wholeTable: uploadWholeTable(model, rows),
    order: batch.sparse.length === 0 ? undefined : uploadSliceOrder(model, batch, tableWidthOf(batch.pieces)),
  };
}

/** At least the rows that any row of a batch visits in any slice. */
export function longestVisit({ share: { map } }: Pick<LoadedModel, "share">, { pieces }: RowBatch): number {
  return longestBucket(
    Math.max(
      ...pieces.flatMap(({ sequence: { open }, from, rows }) =>
        Array.from({ length: map.workers }, (_, worker) => map.localRows(worker, open.pageOffset, from + rows))
      ),
    ),
  );
}

/** Uploads where the copies of a batch's sequences lie. */
export function copyPlaces(
  { commands, scratch, replicas, share: { map, index } }: LoadedModel,
  batch: RowBatch,
): CopyPlaces {
  const { pieces } = batch;
  const peers = Array.from({ length: map.workers }, (_, worker) => worker).filter((worker) => worker !== index);
  const maxPages = tableWidthOf(pieces);
  const slotOf = (number: number, owner: number) => number * peers.length + peers.indexOf(owner);
  const words = new Uint32Array(pieces.length * peers.length * maxPages);
  for (const [number, { sequence: { open } }] of pieces.entries()) {
    for (const owner of peers) {
      words.set(replicas?.copies?.placesOf(open.sequence, owner) ?? [], slotOf(number, owner) * maxPages);
    }
  }
  const table = scratch.take("table of copied pages", "u32", [pieces.length * peers.length, maxPages]);
  commands.write(table, words);
  return { table, maxPages, slotOf };
}

/** What rows see of each worker's slice, by worker. */
export function viewsOf(
  model: LoadedModel,
  rows: readonly OwnedRow[],
  { table, maxPages, slotOf }: CopyPlaces,
): readonly SliceView[] {
  const { slice: { pageTable, tableWidth }, share: { map, index } } = model;
  return Array.from({ length: map.workers }, (_, owner): SliceView => {
    if (owner === index) return { owner, rowTable: undefined, pageTable, maxPages: tableWidth };
    const rowTable = uploadView(model, rows, { owner, slotOf: (number) => slotOf(number, owner) });
    return { owner, rowTable, pageTable: table, maxPages };
  });
}

/** The rows of a batch, in order. */
export function rowsOf({ pieces }: Pick<RowBatch, "pieces">): OwnedRow[] {
  return pieces.flatMap((piece, number) =>
    Array.from({ length: piece.rows }, (_, i): OwnedRow => ({ piece, number, position: piece.from + i }))
  );
}

/** Every row is appended at its position among all pages of its piece. */
function uploadWholeTable(
  { commands, scratch, config: { slidingWindow: window } }: LoadedModel,
  rows: readonly OwnedRow[],
): Tensor {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  for (const [i, { piece: { sequence, attention }, number, position }] of rows.entries()) {
    const sparse = attention === "sparse" ? sequence.open.sparse : undefined;
    const row = sparse === undefined
      ? { ...APPENDED, appendRow: position }
      : tableRow(sequence, position, { share: EVERY_PAGE, window, sparse });
    writeTableRow(table, i, { ...row, sequenceSlot: number });
  }
  const tensor = scratch.take("table of rows among all pages", "u32", [rows.length, ROW_WORDS]);
  commands.write(tensor, table);
  return tensor;
}

/** As if one worker had all pages. */
const EVERY_PAGE: PageShare = { map: new PageMap([1]), index: 0 };

/** Sees nothing, and chooses nothing. */
const APPENDED = {
  kvFrom: 0,
  kvLimit: 0,
  selected: 0,
  coverage: undefined,
  setShape: "kv_head",
  sinks: 0,
  recent: 0,
} as const;

/** What own rows see of another worker's slice. */
function uploadView(
  { commands, scratch, share: { map }, config: { slidingWindow: window } }: LoadedModel,
  own: readonly OwnedRow[],
  { owner, slotOf }: { readonly owner: number; readonly slotOf: (number: number) => number },
): Tensor {
  const table = new Uint32Array(Math.max(1, own.length) * ROW_WORDS);
  for (const [i, { piece: { sequence, attention }, number, position }] of own.entries()) {
    const sparse = attention === "sparse" ? sequence.open.sparse : undefined;
    const row = tableRow(sequence, position, { share: { map, index: owner }, window, sparse });
    writeTableRow(table, i, { ...row, sequenceSlot: slotOf(number), appendRow: undefined });
  }
  const tensor = scratch.take(`row table of slice ${owner}`, "u32", [Math.max(1, own.length), ROW_WORDS]);
  commands.write(tensor, table);
  return tensor;
}
