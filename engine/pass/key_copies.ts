/**
 * Where the rows of a prompt lie whose keys and values travel: own ones in the slice, those of others among their copies,
 * page by page as on the worker that owns them. Knows rows and tables; knows nothing of layers.
 */

import { ENTRY_WORDS } from "../../kernels/attention/replica_rows.ts";
import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { OwnedRange } from "../exchange.ts";
import type { PageCopies } from "../kv/page_copies.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import { PAGE_TOKENS, pagesFor } from "../span.ts";
import { tableRow } from "./table_row.ts";
import { ownRanges } from "./row_ranges.ts";

/** One worker's slice as this worker reads it. */
export interface SliceView {
  /** Index of the worker that owns it. */
  readonly owner: number;
  /** u32 [computed, 8]: what own rows see of it; undefined for the own slice, of which the pass has a table. */
  readonly rowTable: Tensor | undefined;
  readonly pageTable: Tensor;
  readonly maxPages: number;
}

/** What a batch needs to have its keys and values travel. */
export interface KeyCopies {
  /** By worker. */
  readonly views: readonly SliceView[];
  /** Own rows of each piece, back to back. */
  readonly runs: readonly RowRange[];
  /** u32 [entries, 4]: the rows of all workers, each KV head by itself, owner by owner. */
  readonly entries: Tensor;
  readonly ranges: readonly OwnedRange[];
  /** u32 [sequences · peers, maxPages]: where copies of each peer's pages lie. */
  readonly copyTable: Tensor;
  readonly maxPages: number;
}

/** Widths of tables of copied pages are multiples of this. */
const TABLE_PAGES = 64;

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
 * Makes room for copies of a batch's rows, and uploads where they lie. To be called when the batches before it have been.
 * @param staying of batches that are still under way, and of this one
 * @returns undefined when its queries are to travel: there is no room, or something before its rows is not copied
 */
export function takeKeyCopies(
  model: LoadedModel,
  batch: RowBatch,
  staying: readonly SequencePiece[] = batch.pieces,
): KeyCopies | undefined {
  const { share: { map, index } } = model;
  if (!copiesOf(model, batch)?.extend(batch.pieces, staying)) return undefined;
  const places = copyPlaces(model, batch);
  const rows = Array.from({ length: map.workers }, (_, owner) => rowsOf(batch, owner));
  const own = rows[index] ?? [];
  return {
    views: viewsOf(model, own, places),
    runs: runsOf(own),
    ...uploadEntries(model, rows, places),
    copyTable: places.table,
    maxPages: places.maxPages,
  };
}

/** Whether the keys and values of a batch can travel while other batches are under way, whose copies stay. */
export function canTakeKeyCopies(
  model: Pick<LoadedModel, "replicas" | "config">,
  batch: RowBatch,
  staying: readonly SequencePiece[],
): boolean {
  return copiesOf(model, batch)?.canExtend(batch.pieces, staying) ?? false;
}

/** Undefined when the queries of the batch travel in any case, or nothing does. */
function copiesOf(
  { replicas, config }: Pick<LoadedModel, "replicas" | "config">,
  { ranges }: RowBatch,
): PageCopies | undefined {
  return ranges === undefined || config.localLayers !== undefined ? undefined : replicas?.copies;
}

/** Uploads where the copies of a batch's sequences lie. */
export function copyPlaces(
  { commands, scratch, replicas, share: { map, index } }: LoadedModel,
  batch: RowBatch,
): CopyPlaces {
  const { pieces } = batch;
  const peers = Array.from({ length: map.workers }, (_, worker) => worker).filter((worker) => worker !== index);
  const pages = Math.max(...pieces.map(({ from, rows }) => pagesFor(from + rows)));
  // Programs hold for steps whose tables are as wide, and for as long as the table need not grow.
  const maxPages = Math.ceil(pages / TABLE_PAGES) * TABLE_PAGES;
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

/** The rows of a batch that a worker computes, in order. */
function rowsOf({ ranges = [], pieces }: RowBatch, owner: number): OwnedRow[] {
  const owned = ownRanges(ranges, owner);
  return pieces.flatMap((piece, number) =>
    owned.flatMap(({ first, rows }) => {
      const [from, end] = [Math.max(first, piece.first), Math.min(first + rows, piece.first + piece.rows)];
      const position = piece.from + from - piece.first;
      return Array.from({ length: Math.max(0, end - from) }, (_, i) => ({ piece, number, position: position + i }));
    })
  );
}

function runsOf(rows: readonly OwnedRow[]): RowRange[] {
  const runs: { first: number; rows: number; number: number }[] = [];
  for (const [first, { number }] of rows.entries()) {
    const last = runs.at(-1);
    if (last?.number === number) last.rows++;
    else runs.push({ first, rows: 1, number });
  }
  return runs;
}

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

/** Where each row lies: own ones in the slice, those of others among their copies. */
function uploadEntries(
  { commands, scratch, config: { kvHeads }, share: { map, index } }: LoadedModel,
  rows: readonly (readonly OwnedRow[])[],
  { slotOf }: CopyPlaces,
): Pick<KeyCopies, "entries" | "ranges"> {
  const ranges: OwnedRange[] = [];
  const words = new Uint32Array(rows.flat().length * kvHeads * ENTRY_WORDS);
  let next = 0;
  for (const [owner, owned] of rows.entries()) {
    if (owned.length > 0) ranges.push({ first: next, rows: owned.length * kvHeads, owner });
    for (const { piece: { sequence: { open, slot } }, number, position } of owned) {
      const page = map.pagesBefore(owner, open.pageOffset, Math.floor(position / PAGE_TOKENS));
      const localRow = page * PAGE_TOKENS + position % PAGE_TOKENS;
      const tableSlot = owner === index ? slot : slotOf(number, owner);
      for (let head = 0; head < kvHeads; head++) words.set([tableSlot, head, localRow], next++ * ENTRY_WORDS);
    }
  }
  const entries = scratch.take("entries of keys and values", "u32", [next, ENTRY_WORDS]);
  commands.write(entries, words);
  return { entries, ranges };
}
