/**
 * What the rows of a batch see and append, where the keys and values of all workers are on this one: each worker's slice apart, the
 * own one and the copies of the others', page by page as on the worker that owns them. Knows rows and tables; knows nothing of
 * layers.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import { tableRow } from "./table_row.ts";
import { type KeyPlaces, placeKeys, type UnsentKeys } from "./key_exchange.ts";
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
  /** u32 [rows, 8]: where each row is appended among all pages. */
  readonly appendTable: Tensor;
  readonly unsent: UnsentKeys;
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
 * @param unsent of the step
 */
export function takeKeyCopies(model: LoadedModel, batch: RowBatch, unsent: UnsentKeys): KeyCopies {
  const rows = rowsOf(batch);
  return {
    ...placeKeys(model, batch),
    views: viewsOf(model, rows, copyPlaces(model, batch)),
    runs: batch.pieces.map(({ first, rows }) => ({ first, rows })),
    appendTable: uploadAppendTable(model, rows),
    unsent,
  };
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
function uploadAppendTable({ commands, scratch }: LoadedModel, rows: readonly OwnedRow[]): Tensor {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  for (const [i, { number, position }] of rows.entries()) {
    writeTableRow(table, i, { ...APPENDED, sequenceSlot: number, appendRow: position });
  }
  const tensor = scratch.take("table of appended rows", "u32", [rows.length, ROW_WORDS]);
  commands.write(tensor, table);
  return tensor;
}

/** Sees nothing. */
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
