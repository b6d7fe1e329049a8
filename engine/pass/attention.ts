/**
 * The attention of one layer on this worker: queries, keys and values of the computed rows, and the states of all rows of
 * a batch over this worker's slice. Knows layers and roles; knows nothing of peers.
 */

import { attendRows, scratchShape } from "../../kernels/attention/decode_attention.ts";
import { attendSpan } from "../../kernels/attention/prefill_attention.ts";
import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { ropeAppend } from "../../kernels/attention/rope_append.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Weight } from "../../kernels/products/weight.ts";
import type { RowRun } from "./batch_plan.ts";
import type { Model, Rows } from "./forward.ts";
import type { KvLayer } from "../kv/kv_slice.ts";
import type { LayerRole } from "../layer_plan.ts";
import { ownRanges } from "./row_ranges.ts";
import { isSparse, scoresOf, selectionOf } from "./selection.ts";
import type { LayerWeights } from "../model/weights.ts";

/** What one layer brings along. */
export interface LayerInput {
  readonly weights: LayerWeights;
  readonly kv: KvLayer;
  readonly role: LayerRole;
}

type Product = (operands: { readonly weight: Weight; readonly x: Tensor; readonly y: Tensor }) => void;

/**
 * Norm, q, k and v of the computed rows; appends k and v rows that this worker owns.
 * @returns q f32 [rows of the batch, heads, headDim]; of split rows only the own ones are filled
 */
export function projectQueries(model: Model, rows: Rows, layer: LayerInput & { readonly product: Product }): Tensor {
  const { commands, scratch, config, slice } = model;
  const { heads, kvHeads, headDim } = config;
  const { weights, kv } = layer;
  rmsNorm(commands, {
    x: rows.x,
    weight: weights.attentionNorm,
    out: rows.normed,
    rows: rows.computed,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const qkv = scratch.take("qkv", "f32", [rows.computed, (heads + 2 * kvHeads) * headDim]);
  layer.product({ weight: weights.qkv, x: rows.normed, y: qkv });
  const q = scratch.take("q", "f32", [rows.computed, heads, headDim]);
  ropeAppend(commands, {
    shape: { heads, kvHeads, headDim },
    rows: rows.computed,
    qkv,
    ...(weights.qkvBias && { bias: weights.qkvBias }),
    ...(weights.qNorm && weights.kNorm && { norms: { q: weights.qNorm, k: weights.kNorm, eps: config.rmsNormEps } }),
    rotations: rows.rotations,
    rowTable: rows.table,
    pageTable: slice.pageTable,
    maxPages: slice.maxPages,
    q,
    kv,
  });
  return rows.batch.ranges === undefined ? q : spread(model, rows, q);
}

/** Own rows to their places among all rows of the batch. */
function spread({ commands, scratch, config, share }: Model, { batch }: Rows, own: Tensor): Tensor {
  const { heads, headDim } = config;
  const all = scratch.take("q of all rows", "f32", [batch.rows, heads, headDim]);
  const rowBytes = heads * headDim * 4;
  for (const { first, rows, at } of ownRanges(batch.ranges ?? [], share.index)) {
    commands.copy(own, all, { from: at * rowBytes, to: first * rowBytes, byteLength: rows * rowBytes });
  }
  return all;
}

/** What attending takes besides the batch. */
interface AttendInput extends LayerInput {
  /** f32 [rows of the batch, heads, headDim]. */
  readonly q: Tensor;
  /** Whether this worker holds any row that these rows read. */
  readonly holds: boolean;
}

/**
 * Attends all rows of the batch to what this worker holds.
 * @returns o f32 [rows, heads, headDim], lse f32 [rows, heads]; of no meaning when it holds nothing, and never read then
 */
export function attend(model: Model, rows: Rows, layer: AttendInput): AttentionState {
  const { kv, role, q, holds } = layer;
  const { commands, scratch, config, slice } = model;
  const { batch } = rows;
  const { heads, kvHeads, headDim } = config;
  const out = {
    o: scratch.take("attention outputs", "f32", [batch.rows, heads, headDim]),
    lse: scratch.take("attention lse", "f32", [batch.rows, heads]),
  };
  if (!holds) return out;
  const common = {
    shape: { heads, kvHeads, headDim },
    q,
    kv,
    pageTable: slice.pageTable,
    maxPages: slice.maxPages,
    rowTable: rows.wholeTable,
    scale: 1 / Math.sqrt(headDim),
    out,
  };
  for (const run of batch.runs) {
    const range = { ...common, firstRow: run.first, rows: run.rows, longest: run.longest };
    if (batch.product === "tiled") attendSpan(commands, range);
    else {
      const { spans } = run;
      attendRows(commands, { ...range, spans, scratch: splitScratch(model, run), ...reading(model, run, role) });
    }
  }
  return out;
}

function splitScratch({ scratch, config }: Model, run: RowRun): AttentionState {
  const { heads, kvHeads, headDim } = config;
  const splits = scratchShape({ heads, kvHeads, headDim }, run);
  return {
    o: scratch.take("split outputs", "f32", splits.o),
    lse: scratch.take("split lse", "f32", splits.lse),
  };
}

/** What the role of the layer adds to the attention of a run: scores to choose from, or the selection to read. */
function reading(
  model: Model,
  run: RowRun,
  role: LayerRole,
): Partial<Pick<Parameters<typeof attendRows>[1], "scores" | "selection" | "longest">> {
  if (role === "dense" || !isSparse(run)) return {};
  if (role === "select") return { scores: scoresOf(model, run) };
  const selection = selectionOf(model, run);
  return { selection, longest: selection.stride };
}
