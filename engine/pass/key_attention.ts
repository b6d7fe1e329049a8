/**
 * The attention of rows whose sequences are on this worker as a whole, own pages and copies: they attend to each worker's slice
 * apart. States are merged in the order of the workers, so that bits are those of queries and states that travel, and either way
 * can be taken at any time.
 */

import { type DecodeAttention, decodeAttention } from "../../kernels/attention/decode_attention.ts";
import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import { mergeStates } from "../../kernels/attention/merge_states.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { RowRun } from "../row_batch.ts";
import type { KeyCopies, SliceView } from "./key_copies.ts";
import type { Pass, PassLayer } from "./pass.ts";
import type { RowCopies } from "./row_copies.ts";
import { isSparse, scoresOf, selectionOf, sliceScoresOf, sliceSelectionOf } from "./selection_buffers.ts";
import { outputsFor, type RowStates } from "./row_states.ts";
import { splitScratch } from "./split_scratch.ts";

/** Numbers between two tensors that every adapter can bind. */
const BINDABLE = 64;

/**
 * Attends own rows of a prompt to every worker's slice.
 * @param q f32 [computed, heads, headDim], or halves of it
 * @returns states over all slices
 */
export function attendToCopies(
  pass: Pass,
  layer: PassLayer,
  { views, runs, q }: Pick<KeyCopies, "views" | "runs"> & { readonly q: Tensor },
): RowStates {
  const { commands, config: { heads, kvHeads, headDim, attentionScale: scale } } = pass.model;
  return attendSlices(pass, { layer, views }, ({ owner: _, ...slice }) => {
    for (const { first: firstRow, rows } of runs) {
      const common = { ...slice, shape: { heads, kvHeads, headDim }, kv: layer.kv, q, scale };
      prefillAttention(commands, { ...common, firstRow, rows });
    }
  });
}

/** The same for all rows of a batch that every worker computes. */
export function attendRowsToCopies(
  pass: Pass,
  layer: PassLayer,
  { views, longest: all, q }: Pick<RowCopies, "longest"> & {
    readonly views: readonly SliceView[];
    readonly q: Tensor;
  },
): RowStates {
  const { model: { commands, config, share }, batch } = pass;
  const { heads, kvHeads, headDim, attentionScale: scale, slidingWindow: window = Infinity } = config;
  const shape = { heads, kvHeads, headDim };
  return attendSlices(pass, { layer, views }, ({ owner, ...slice }) => {
    for (const run of batch.runs) {
      const { first: firstRow, rows, blocks } = run;
      if (batch.product === "tiled") {
        prefillAttention(commands, { ...slice, shape, kv: layer.kv, q, scale, firstRow, rows });
        continue;
      }
      const longest = Math.min(owner === share.index ? run.longest : all, window);
      const scratch = splitScratch(pass.model, { rows, longest, selected: Math.min(run.sparse?.budget ?? 0, all) });
      const common = { ...slice, shape, kv: layer.kv, q, scale, firstRow, rows, longest, blocks, scratch };
      decodeAttention(commands, { ...common, ...selectionPartsOf(pass, layer, { run, owner, longest: all }) });
    }
  });
}

/** What the role of the layer adds: own scores to choose from, or what was chosen of a slice. */
function selectionPartsOf(
  { model, keyCopies }: Pass,
  { role }: PassLayer,
  { run, owner, longest }: { readonly run: RowRun; readonly owner: number; readonly longest: number },
): Partial<Pick<DecodeAttention, "scores" | "selection" | "longest">> {
  if (role === "dense" || !isSparse(run)) return {};
  const isOwn = owner === model.share.index;
  if (role === "select") {
    if (isOwn) return { scores: scoresOf(model, run) };
    // Of rows that others compute too, each worker chooses from its own slice.
    return keyCopies === undefined ? {} : { scores: sliceScoresOf(model, run, { owner, longest }) };
  }
  const selection = isOwn ? selectionOf(model, run) : sliceSelectionOf(model, run, { owner, longest });
  return { selection, longest: selection.stride };
}

/** What attention reads of a slice, and where it leaves its states. */
interface SliceAttention {
  readonly owner: number;
  readonly pageTable: Tensor;
  readonly maxPages: number;
  readonly rowTable: Tensor;
  readonly out: AttentionState;
}

/** Attends to slices one after the other, and merges the states in their order. */
function attendSlices(
  pass: Pass,
  { layer, views }: { readonly layer: PassLayer; readonly views: readonly SliceView[] },
  attend: (slice: SliceAttention) => void,
): RowStates {
  const { model: { commands, scratch, config: { heads, headDim } }, computed } = pass;
  const rows = bindableRows(computed, heads);
  const holders = pass.holdersAt(layer);
  const held = views.filter(({ owner }) => holders[owner]);
  const states = Math.max(1, held.length);
  const parts = {
    o: scratch.take("slices' outputs", "f32", [states, rows, heads, headDim]),
    lse: scratch.take("slices' lse", "f32", [states, rows, heads]),
  };
  for (const [i, { owner, rowTable = pass.inputs.computedTable, pageTable, maxPages }] of held.entries()) {
    const out = { o: part(parts.o, i, [rows, heads, headDim]), lse: part(parts.lse, i, [rows, heads]) };
    attend({ owner, rowTable, pageTable, maxPages, out });
  }
  const merged = mergedStates(pass, layer);
  const out = { o: merged.o.tensor, lse: merged.lse };
  mergeStates(commands, { shape: { heads, headDim }, rows, count: held.length, parts, out, outForm: merged.o.form });
  return merged;
}

/** Where the merged states of copied rows lie until the next layer attends. */
export function mergedStates(pass: Pass, layer: PassLayer): RowStates {
  const { model: { scratch, config: { heads } }, computed } = pass;
  const rows = bindableRows(computed, heads);
  return {
    o: outputsFor(pass, layer, "merged outputs", rows),
    lse: scratch.take("merged lse", "f32", [rows, heads]),
  };
}

/** As many rows, or a few more: states of so many can follow each other in one tensor and be bound apart. */
function bindableRows(rows: number, heads: number): number {
  let step = 1;
  while (step * heads % BINDABLE !== 0) step++;
  return Math.ceil(rows / step) * step;
}

/** One of the equal parts of a tensor. */
function part(whole: Tensor, index: number, shape: readonly number[]): Tensor {
  const byteLength = shape.reduce((product, size) => product * size, 4);
  return { ...whole, byteOffset: whole.byteOffset + index * byteLength, byteLength, shape };
}
