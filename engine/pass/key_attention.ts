/**
 * The attention of a prompt whose keys and values travel: workers compute the rows of their own pages, send each other the
 * keys and values of these, and attend on their own, to each worker's slice apart. States are merged in the order of the
 * workers, so that bits are those of queries that travel, and either way can be taken at any time.
 */

import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import { mergeStates } from "../../kernels/attention/merge_states.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { copyReplicaRows } from "../../kernels/attention/replica_rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { KeyCopies } from "./key_copies.ts";
import type { Pass, PassLayer } from "./pass.ts";

/** Rows whose states, one worker's after the other's, start where every adapter can bind them. */
const BINDABLE_ROWS = 64;

/** Sends the keys and values of own rows, and puts those of the others among the copies. */
export async function sendKeys(pass: Pass, layer: PassLayer, copies: KeyCopies): Promise<void> {
  const { model: { commands, scratch, config, slice, share, exchange } } = pass;
  const { heads, kvHeads, headDim } = config;
  const { entries, ranges, copyTable, maxPages } = copies;
  const total = ranges.reduce((sum, { rows }) => sum + rows, 0);
  const transit = scratch.take("keys and values in transit", "u32", [total, 1, 2, headDim / 2]);
  const rows = { kv: layer.kv, shape: { heads, kvHeads, headDim }, entries, transit, layers: 1, layer: 0 };
  const own = { pageTable: slice.pageTable, maxPages: slice.tableWidth };
  for (const range of ranges) {
    if (range.owner === share.index) copyReplicaRows(commands, { ...rows, ...own, direction: "pack", range });
  }
  await exchange.keys(pass.pointAt(layer), ranges, { tensor: transit, rowBytes: headDim * 4 });
  for (const range of ranges) {
    if (range.owner === share.index) continue;
    copyReplicaRows(commands, { ...rows, pageTable: copyTable, maxPages, direction: "unpack", range });
  }
}

/**
 * Attends own rows to every worker's slice.
 * @param q f32 [computed, heads, headDim], or halves of it
 * @returns states over all slices: o f32 [computed, heads, headDim], lse f32 [computed, heads]
 */
export function attendToCopies(
  pass: Pass,
  layer: PassLayer,
  { views, runs, q }: KeyCopies & { readonly q: Tensor },
): AttentionState {
  const { model: { commands, scratch, config }, computed } = pass;
  const { heads, kvHeads, headDim } = config;
  const shape = { heads, kvHeads, headDim };
  const rows = Math.ceil(computed / BINDABLE_ROWS) * BINDABLE_ROWS;
  const state = (name: string, states: readonly number[]): AttentionState => ({
    o: scratch.take(`${name} outputs`, "f32", [...states, rows, heads, headDim]),
    lse: scratch.take(`${name} lse`, "f32", [...states, rows, heads]),
  });
  const parts = state("slices'", [Math.max(1, views.length)]);
  for (const [i, { rowTable = pass.inputs.computedTable, pageTable, maxPages }] of views.entries()) {
    const out = {
      o: part(parts.o, i, [rows, heads, headDim]),
      lse: part(parts.lse, i, [rows, heads]),
    };
    const slice = { kv: layer.kv, pageTable, maxPages, rowTable };
    for (const { first, rows } of runs) {
      prefillAttention(commands, {
        ...slice,
        shape,
        q,
        firstRow: first,
        rows,
        scale: config.attentionScale,
        out,
      });
    }
  }
  const merged = state("merged", []);
  mergeStates(commands, { shape, rows, count: views.length, parts, out: merged });
  return merged;
}

/** One of the equal parts of a tensor. */
function part(whole: Tensor, index: number, shape: readonly number[]): Tensor {
  const byteLength = shape.reduce((product, size) => product * size, 4);
  return { ...whole, byteOffset: whole.byteOffset + index * byteLength, byteLength, shape };
}
