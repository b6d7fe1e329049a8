/**
 * Sparse layers without exchanges: the rows that a selection needs and that lie on other workers are copied here, once
 * for all sparse layers that it governs, and these attend on their own. The order of a set is that of its positions,
 * wherever they lie, so that all workers compute the same bits. Knows rows and positions; knows nothing of connections.
 */

import { copyReplicaRows, REPLICA_ENTRY_WORDS } from "../../kernels/attention/replica_rows.ts";
import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import { NO_POSITION } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { OwnedRange } from "../exchange.ts";
import type { MissingRow } from "../kv/sequence_replicas.ts";
import { sparseLayersAfter } from "../layer_plan.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { BatchRow } from "../row_batch.ts";
import { PAGE_TOKENS, type ReplicaCount } from "../span.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { isSparse, rowsOf, selectionOf, type SparseRun } from "./selection_buffers.ts";

/** Messages of replicas are cut at this size, between layers. */
const MESSAGE_BYTES = 64 << 20;

/** A row that is missing in some store, as all workers know it. */
interface Entry {
  readonly sequenceSlot: number;
  readonly kvHead: number;
  /** Of this worker: where it reads the row when it owns it, where it writes it when not. */
  readonly localRow: number;
}

/** What the group chose for a batch, as this worker reads it. */
interface Located {
  readonly tables: readonly { readonly run: SparseRun; readonly rows: Uint32Array<ArrayBuffer> }[];
  /** By owner. */
  readonly entries: readonly (readonly Entry[])[];
  readonly count: ReplicaCount;
}

/**
 * Takes what the group chose at a select layer, and brings what is missing here and on the other workers to its place.
 * @param lists chosen positions, row by row, set by set
 */
export async function adoptReplicated(pass: Pass, layer: PassLayer, lists: readonly Uint32Array[]): Promise<void> {
  const { model: { commands, roles = [] } } = pass;
  const sparseLayers = sparseLayersAfter(roles, layer.index);
  const { tables, entries, count } = locate(pass, layer, { lists, sparseLayers });
  pass.replicated.chosen += count.chosen;
  pass.replicated.missing += count.missing;
  for (const { run, rows } of tables) commands.write(selectionOf(pass.model, run).positions, rows);
  const ranges = rangesOf(entries);
  const total = ranges.reduce((sum, { rows }) => sum + rows, 0);
  if (total === 0) return;
  const table = uploadEntries(pass, entries, total);
  const layers = pass.layers.slice(layer.index + 1, layer.index + 1 + sparseLayers);
  const bytesPerLayer = total * pass.model.config.headDim * 4;
  const atOnce = Math.max(1, Math.floor(MESSAGE_BYTES / bytesPerLayer));
  for (let first = 0; first < layers.length; first += atOnce) {
    await send(pass, layers.slice(first, first + atOnce), { table, ranges, total });
  }
}

function locate(
  pass: Pass,
  { index: selectLayer }: PassLayer,
  { lists, sparseLayers }: { readonly lists: readonly Uint32Array[]; readonly sparseLayers: number },
): Located {
  const { model, batch, counter } = pass;
  const entries: Entry[][] = Array.from({ length: model.share.map.workers }, () => []);
  let [next, chosen, missing] = [0, 0, 0];
  const tables = batch.runs.filter(isSparse).map((run) => {
    const { sets, stride } = selectionOf(model, run);
    const rows = new Uint32Array(run.rows * sets * stride).fill(NO_POSITION);
    for (const [r, row] of rowsOf(batch, run).entries()) {
      const own = lists.slice(next, next += sets);
      const found = model.replicas?.of(row.sequence.open.sequence)?.find(selectLayer, own);
      if (found === undefined) throw new RangeError(`Cannot adopt selection: row ${row.row} has no replicas`);
      for (const [set, positions] of own.entries()) {
        placeSet(model, row, { positions, replicas: found.rows[set] ?? positions }, rows, (r * sets + set) * stride);
        chosen += positions.length;
      }
      counter.add(row.row, own.reduce((sum, { length }) => sum + length * sparseLayers, 0));
      missing += found.missing.length;
      for (const each of found.missing) addEntries(model, row, each, entries);
    }
    return { run, rows };
  });
  return { tables, entries, count: { chosen, missing } };
}

/** Writes the local rows of a set: in this worker's own pages where it owns them, else among the replicas. */
function placeSet(
  { share: { map, index } }: LoadedModel,
  { sequence: { open: { pageOffset } } }: BatchRow,
  { positions, replicas }: { readonly positions: Uint32Array; readonly replicas: Uint32Array },
  rows: Uint32Array,
  to: number,
): void {
  // Positions ascend, so that neighbours mostly share a page.
  let [page, isOwn, base] = [-1, false, 0];
  for (let i = 0; i < positions.length; i++) {
    const position = positions[i] ?? 0;
    if (Math.floor(position / PAGE_TOKENS) !== page) {
      page = Math.floor(position / PAGE_TOKENS);
      isOwn = map.owner(pageOffset, page) === index;
      base = isOwn ? map.pagesBefore(index, pageOffset, page) * PAGE_TOKENS : 0;
    }
    rows[to + i] = isOwn ? base + position % PAGE_TOKENS : replicas[i] ?? NO_POSITION;
  }
}

function addEntries(
  { share: { map, index }, config }: LoadedModel,
  { sequence: { open: { pageOffset }, slot } }: BatchRow,
  { position, kvHead, localRow }: MissingRow,
  entries: readonly Entry[][],
): void {
  const page = Math.floor(position / PAGE_TOKENS);
  const owner = map.owner(pageOffset, page);
  const ownRow = map.pagesBefore(index, pageOffset, page) * PAGE_TOKENS + position % PAGE_TOKENS;
  const heads = kvHead === undefined ? Array.from({ length: config.kvHeads }, (_, head) => head) : [kvHead];
  for (const head of heads) {
    const entry = { sequenceSlot: slot, kvHead: head, localRow: owner === index ? ownRow : localRow };
    entries[owner]?.push(entry);
  }
}

function rangesOf(entries: readonly (readonly Entry[])[]): OwnedRange[] {
  let first = 0;
  return entries.map(({ length }, owner) => {
    const range = { first, rows: length, owner };
    first += length;
    return range;
  }).filter(({ rows }) => rows > 0);
}

function uploadEntries(
  { model: { commands, scratch } }: Pass,
  entries: readonly (readonly Entry[])[],
  total: number,
): Tensor {
  const words = new Uint32Array(total * REPLICA_ENTRY_WORDS);
  for (const [i, { sequenceSlot, kvHead, localRow }] of entries.flat().entries()) {
    words.set([sequenceSlot, kvHead, localRow], i * REPLICA_ENTRY_WORDS);
  }
  const table = scratch.take("replica entries", "u32", [total, REPLICA_ENTRY_WORDS]);
  commands.write(table, words);
  return table;
}

/** Own rows out of some layers' pages, across, and the others' rows into these. */
async function send(
  pass: Pass,
  layers: readonly PassLayer[],
  { table, ranges, total }: { readonly table: Tensor; readonly ranges: readonly OwnedRange[]; readonly total: number },
): Promise<void> {
  const { model: { commands, scratch, config, slice, exchange, share } } = pass;
  const { heads, kvHeads, headDim } = config;
  const [first] = layers;
  if (first === undefined) return;
  const transit = scratch.take("replica transit", "u32", [total, layers.length, 2, headDim / 2]);
  const copy = (direction: "pack" | "unpack", range: RowRange) => {
    for (const [layer, { kv }] of layers.entries()) {
      const place = { kv, pageTable: slice.pageTable, maxPages: slice.tableWidth };
      const rows = { entries: table, transit, layers: layers.length, layer };
      copyReplicaRows(commands, { ...place, ...rows, shape: { heads, kvHeads, headDim }, direction, range });
    }
  };
  for (const range of ranges.filter(({ owner }) => owner === share.index)) copy("pack", range);
  const rows = { tensor: transit, rowBytes: layers.length * headDim * 4 };
  await exchange.replicas(pass.pointAt(first), ranges, rows);
  for (const range of ranges.filter(({ owner }) => owner !== share.index)) copy("unpack", range);
}
