/**
 * Rows that every worker computes, decode rows and short prompts, of sequences whose keys and values are all here, own ones
 * and copies: they attend to each worker's slice by themselves, exchange nothing, and have the bits of rows whose states
 * travel. Every worker adds them to its copies. Knows rows and tables; knows nothing of layers.
 */

import { ROW_WORDS, writeTableRow } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import { PAGE_TOKENS } from "../span.ts";
import { tableRow } from "./table_row.ts";
import {
  type CopyPlaces,
  copyPlaces,
  longestVisit,
  type OwnedRow,
  rowsOf,
  type SliceView,
  viewsOf,
} from "./key_copies.ts";

/** What a batch needs to keep copies, and to attend to them. */
export interface RowCopies {
  /** u32 [rows of the batch, 8]: where rows of other workers' pages are appended. */
  readonly appendTable: Tensor;
  readonly pageTable: Tensor;
  readonly maxPages: number;
  /** By worker; undefined: some rows see what is not copied. */
  readonly views: readonly SliceView[] | undefined;
  /** At least the rows that any of them visits in any slice. */
  readonly longest: number;
}

/**
 * Makes room for copies of a batch's rows, and uploads where they lie. To be called when the batches before it have been.
 * @param staying of the step, whose copies do not give way
 * @returns undefined when none of its sequences is copied
 */
export function takeRowCopies(
  model: LoadedModel,
  batch: RowBatch,
  staying: readonly SequencePiece[] = batch.pieces,
): RowCopies | undefined {
  const { replicas, config } = model;
  const copies = replicas?.copies;
  if (copies === undefined || batch.ranges !== undefined || config.localLayers !== undefined) return undefined;
  // One by one, so that a sequence that is not copied does not end the copies of the others.
  const copied = new Set(batch.pieces.filter((piece) => copies.extend([piece], staying)));
  if (copied.size === 0) return undefined;
  const places = copyPlaces(model, batch);
  const rows = rowsOf(batch);
  return {
    appendTable: uploadAppendTable(model, rows.map((row) => ({ ...row, isCopied: copied.has(row.piece) })), places),
    pageTable: places.table,
    maxPages: places.maxPages,
    views: copied.size < batch.pieces.length ? undefined : viewsOf(model, rows, places),
    longest: longestVisit(model, batch),
  };
}

/** Rows of other workers' pages go among the copies; own ones are in the slice already. */
function uploadAppendTable(
  { commands, scratch, share: { map, index } }: LoadedModel,
  rows: readonly (OwnedRow & { readonly isCopied: boolean })[],
  { slotOf }: CopyPlaces,
): Tensor {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  for (const [i, { piece: { sequence }, number, position, isCopied }] of rows.entries()) {
    const owner = map.owner(sequence.open.pageOffset, Math.floor(position / PAGE_TOKENS));
    const row = tableRow(sequence, position, { share: { map, index: owner }, window: undefined, sparse: undefined });
    const isKept = isCopied && owner !== index;
    const place = isKept ? { sequenceSlot: slotOf(number, owner) } : { appendRow: undefined };
    writeTableRow(table, i, { ...row, ...place });
  }
  const tensor = scratch.take("table of copied rows", "u32", [rows.length, ROW_WORDS]);
  commands.write(tensor, table);
  return tensor;
}
