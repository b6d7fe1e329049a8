/**
 * The attention of one layer: queries, keys and values of the computed rows, and the states of all rows over the slices
 * of all workers.
 */

import { type DecodeAttention, decodeAttention } from "../../kernels/attention/decode_attention.ts";
import { halfQueries, halfQueriesShape } from "../../kernels/attention/half_queries.ts";
import type { ScoreOutput } from "../../kernels/attention/kv_pages.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { normColumns } from "../../kernels/norm_columns.ts";
import type { HeadPlaces } from "../../kernels/attention/place_heads.ts";
import { ropeAppend } from "../../kernels/attention/rope_append.ts";
import { floatRows, plainRows } from "../../kernels/rows.ts";
import { bytesOf, type Tensor } from "../../kernels/tensor.ts";
import { ALONE } from "../exchange.ts";
import type { LayerRole } from "../layer_plan.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowRun } from "../row_batch.ts";
import { attendRowsToCopies, attendToCopies } from "./key_attention.ts";
import { packKeys, sendKeys } from "./key_exchange.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { multiplyHeads } from "./products.ts";
import { ownRanges } from "./row_ranges.ts";
import { outputsFor, type RowStates } from "./row_states.ts";
import { isSparse, scoresOf, selectionOf, type SparseRun } from "./selection_buffers.ts";
import { splitScratch } from "./split_scratch.ts";

/**
 * q, k, v = rope(qkv(norm(x))); appends the k and v rows that this worker owns, all of a batch that it computes for the others.
 * @returns q of every row, own and peers': f32 [rows, heads, headDim], or halves for the matrix tiles
 */
export async function project(pass: Pass, layer: PassLayer): Promise<Tensor> {
  const { model: { commands, config, exchange }, batch } = pass;
  const { heads, kvHeads, headDim } = config;
  const own = projectOwn(pass, layer);
  if (batch.ranges === undefined) return own;
  if (pass.keyCopies !== undefined) {
    packKeys(pass, layer, pass.keyCopies);
    // Those of a few rows leave when the step is read.
    if (batch.product !== "tiled") return own;
    await sendKeys(pass, layer, pass.keyCopies);
    pass.progress.reach(layer.index);
    await pass.afterEarlier(layer);
    return own;
  }
  const q = spread(pass, own);
  await pass.arrive();
  await exchange.queries(pass.pointAt(layer), batch.ranges, { tensor: q, rowBytes: heads * headDim * 4 });
  const halves = halvesFor(pass, layer, batch.rows);
  if (halves === undefined) return q;
  const shape = { heads, kvHeads, headDim };
  halfQueries(commands, { shape, rows: batch.rows, q, scale: config.attentionScale, out: halves });
  return halves;
}

/** Where the queries of a batch lie that matrix tiles attend; undefined: other kernels do, as all that read a selection. */
function halvesFor(
  { model: { commands, scratch, config }, batch: { product } }: Pass,
  { role }: PassLayer,
  rows: number,
): Tensor | undefined {
  if (product === "vector" && role === "sparse") return undefined;
  const { heads, kvHeads, headDim } = config;
  const attendedBy = product === "tiled" ? "chunk" : "row";
  const shape = halfQueriesShape(commands.gpu.info, { heads, kvHeads, headDim }, { rows, attendedBy });
  return shape && scratch.take("q (halves)", "f16", shape);
}

/** Norms all query heads of a row together, and all key heads. */
function normRows({ model: { commands, config }, computed }: Pass, { weights }: PassLayer, qkv: Tensor): void {
  const { heads, kvHeads, headDim, rmsNormEps: epsilon } = config;
  const all = { x: qkv, rows: computed, width: (heads + 2 * kvHeads) * headDim, epsilon };
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  if (weights.qNorm) normColumns(commands, { ...all, from: 0, cols: queries, weight: weights.qNorm });
  if (weights.kNorm) normColumns(commands, { ...all, from: queries, cols: keys, weight: weights.kNorm });
}

/** @returns q of the computed rows, f32 [computed, heads, headDim]; halves where no peer computes others */
function projectOwn(pass: Pass, layer: PassLayer): Tensor {
  const { model: { commands, scratch, config }, batch, computed } = pass;
  const { qkv: weight, attentionNorm } = layer.weights;
  const x = pass.norm(attentionNorm, weight);
  const places = placesOf(pass, layer);
  if (config.qkNorm === undefined && pass.rowCopies === undefined) {
    multiplyHeads(commands, batch.product, { weight, x, rows: computed, heads: places, scratch });
    return places.q;
  }
  const qkv = scratch.take("qkv", "f32", [computed, weight.rows]);
  pass.multiply({ weight, x, y: qkv });
  if (config.qkNorm === "row") normRows(pass, layer, qkv);
  rotateAndAppend(pass, layer, { qkv, places });
  return places.q;
}

/** Where the heads of the computed rows go, as far as this worker owns them. */
function placesOf(pass: Pass, layer: PassLayer): HeadPlaces {
  const { weights, kv, isLocal } = layer;
  const { model: { scratch, config, slice }, batch, computed, keyCopies } = pass;
  const { heads, kvHeads, headDim } = config;
  const isAlone = batch.ranges === undefined || keyCopies !== undefined;
  const halves = isAlone ? halvesFor(pass, layer, computed) : undefined;
  return {
    shape: { heads, kvHeads, headDim },
    ...(weights.qkvBias && { bias: weights.qkvBias }),
    rotations: isLocal ? pass.inputs.localRotations : pass.inputs.rotations,
    rowTable: keyCopies?.wholeTable ?? pass.inputs.computedTable,
    kv,
    pageTable: keyCopies?.pages.table ?? slice.pageTable,
    maxPages: keyCopies?.pages.maxPages ?? slice.tableWidth,
    q: halves ?? scratch.take("q", "f32", [computed, heads, headDim]),
    scale: config.attentionScale,
  };
}

/** Places heads that are to be normed first, or go to copies of the slices as well. */
function rotateAndAppend(
  { model: { commands, config }, computed, rowCopies }: Pass,
  { weights }: PassLayer,
  { qkv, places }: { readonly qkv: Tensor; readonly places: HeadPlaces },
): void {
  const given = {
    ...places,
    rows: computed,
    qkv,
    ...(config.qkNorm === "head" && weights.qNorm && weights.kNorm &&
      { norms: { q: weights.qNorm, k: weights.kNorm, eps: config.rmsNormEps } }),
  };
  ropeAppend(commands, given);
  if (rowCopies === undefined) return;
  const { appendTable, pageTable, maxPages } = rowCopies;
  ropeAppend(commands, { ...given, rowTable: appendTable, pageTable, maxPages });
}

/** Copies own rows to their places among all rows of the batch; the others' rows are not filled yet. */
function spread({ model: { commands, scratch, config, share }, batch }: Pass, own: Tensor): Tensor {
  const { heads, headDim } = config;
  const all = scratch.take("q of all rows", "f32", [batch.rows, heads, headDim]);
  const rowBytes = heads * headDim * 4;
  for (const { first, rows, at } of ownRanges(batch.ranges ?? [], share.index)) {
    commands.copy(own, all, { from: at * rowBytes, to: first * rowBytes, byteLength: rows * rowBytes });
  }
  return all;
}

/**
 * Attends all rows to this worker's slice, and merges the states of all workers.
 * @param q as `project` returns it
 * @returns states of the computed rows over all slices
 */
export async function attendAll(pass: Pass, layer: PassLayer, q: Tensor): Promise<RowStates> {
  const { model: { scratch, config: { heads, headDim }, exchange }, batch, computed } = pass;
  if (pass.keyCopies !== undefined && batch.product === "tiled") {
    return attendToCopies(pass, layer, { ...pass.keyCopies, q });
  }
  const { views, longest = 0 } = pass.keyCopies ?? pass.rowCopies ?? {};
  if (views !== undefined && !pass.isWhole(layer)) {
    return attendRowsToCopies(pass, layer, { views, longest, q });
  }
  const holders = pass.holdersAt(layer);
  const own = attendOwn(pass, layer, { q, holders });
  if (pass.isWhole(layer)) return own;
  const merged = {
    o: scratch.take("merged outputs", "f32", [computed, heads, headDim]),
    lse: scratch.take("merged lse", "f32", [computed, heads]),
  };
  const states = { own: { o: own.o.tensor, lse: own.lse, rows: batch.rows, heads, headDim }, merged, holders };
  const ready = exchange.states(pass.pointAt(layer), batch.ranges, states);
  if (ready === undefined) return own;
  await pass.arrive();
  pass.expect(ready.begin());
  return { o: floatRows(merged.o), lse: merged.lse };
}

/** x += norm(output(o)), normed where the family has it */
export function addOutput(pass: Pass, { weights }: PassLayer, { o }: RowStates): void {
  pass.add({ weight: weights.output, rows: o, norm: weights.outputNorm });
}

/** @returns states of all rows over this worker's slice; when it holds nothing, they are undefined and never read */
function attendOwn(
  pass: Pass,
  layer: PassLayer,
  { q, holders }: { readonly q: Tensor; readonly holders: readonly boolean[] },
): RowStates {
  const { model, batch } = pass;
  const { kv, role } = layer;
  const { commands, scratch, config, slice, share, exchange } = model;
  const { heads, kvHeads, headDim } = config;
  // Peers merge f32; of chunks, matrix tiles alone write halves.
  const isLast = exchange === ALONE || pass.isWhole(layer);
  const o = isLast && (batch.product !== "tiled" || q.dtype === "f16")
    ? outputsFor(pass, layer, "attention outputs", batch.rows)
    : floatRows(scratch.take("attention outputs", "f32", [batch.rows, heads, headDim]));
  const states = { o, lse: scratch.take("attention lse", "f32", [batch.rows, heads]) };
  if (holders[share.index] !== true && !pass.isWhole(layer)) return states;
  const common = {
    shape: { heads, kvHeads, headDim },
    q,
    kv,
    pageTable: slice.pageTable,
    maxPages: slice.tableWidth,
    rowTable: pass.tableAt(layer),
    scale: config.attentionScale,
    out: { o: o.tensor, lse: states.lse },
  };
  const window = (layer.isLocal ? config.localLayers?.window : config.slidingWindow) ?? Infinity;
  for (const run of batch.runs) {
    if (batch.product === "tiled") {
      const outForm = plainRows("attention", o).form;
      prefillAttention(commands, { ...common, outForm, firstRow: run.first, rows: run.rows });
      continue;
    }
    for (const call of callsOf(model, run, { role, window })) {
      decodeAttention(commands, { ...common, outForm: o.form, ...call });
    }
  }
  return states;
}

type RunCall = Pick<DecodeAttention, "firstRow" | "rows" | "longest" | "scratch" | "blocks" | "scores" | "selection">;

/** The rows of a run as a layer attends them: together where they read a selection, else by length. */
function callsOf(
  model: LoadedModel,
  run: RowRun,
  { role, window }: { readonly role: LayerRole; readonly window: number },
): RunCall[] {
  const { first: firstRow, rows, blocks } = run;
  const scratch = splitScratch(model, { rows, longest: run.longest, selected: run.kept });
  if (role === "sparse" && isSparse(run)) {
    const selection = selectionOf(model, run);
    return [{ firstRow, rows, blocks, scratch, selection, longest: selection.stride }];
  }
  return run.lengths.map(({ first, rows, longest }) => ({
    firstRow: first,
    rows,
    // No row sees more than its window.
    longest: Math.min(longest, window),
    scratch,
    blocks: blocks.filter((block) => block.first >= first && block.first < first + rows),
    ...(role === "select" && isSparse(run) && { scores: scoresFrom(model, run, first - run.first) }),
  }));
}

/** Where the scores of a run's rows from one of them on lie. */
function scoresFrom(model: LoadedModel, run: SparseRun, row: number): ScoreOutput {
  const { scores, stride } = scoresOf(model, run);
  // Strides are multiples of 64 words: every row is at a place that can be bound.
  const skipped = row * model.config.heads * stride * bytesOf(scores.dtype);
  const window = { byteOffset: scores.byteOffset + skipped, byteLength: scores.byteLength - skipped };
  return { scores: { ...scores, ...window, shape: [run.rows - row, model.config.heads, stride] }, stride };
}
