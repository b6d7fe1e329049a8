/**
 * The layer loop: residual rows in, residual rows out, keys and values appended to the slice. Reads like the design's
 * "one layer, on every worker". Knows layers and their roles; knows nothing of sequences, sampling or peers.
 */

import { attendRows, scratchShape } from "../kernels/attention.ts";
import { attendSpan } from "../kernels/attention_tile.ts";
import type { AttentionState } from "../kernels/kv_pages.ts";
import { embed } from "../kernels/embed.ts";
import { matmul } from "../kernels/matmul.ts";
import { matvec } from "../kernels/matvec.ts";
import type { Commands } from "../kernels/pipeline.ts";
import { rmsNorm } from "../kernels/rms_norm.ts";
import { ropeAppend } from "../kernels/rope_append.ts";
import { ROW_WORDS } from "../kernels/row_table.ts";
import type { Scratch } from "../kernels/scratch.ts";
import { swiglu } from "../kernels/swiglu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Weight } from "../kernels/weight.ts";
import type { Batch } from "./batch.ts";
import type { Exchange } from "./exchange.ts";
import type { KvLayer, KvSlice } from "./kv_slice.ts";
import type { LayerRole } from "./layer_plan.ts";
import type { ModelConfig } from "./model_config.ts";
import type { SlicePacer } from "./pacer.ts";
import { type RopeFrequencies, rotations } from "./rope.ts";
import { choose, isSparse, scoresOf, selectionOf } from "./selection.ts";
import type { LayerWeights, Weights } from "./weights.ts";

/** Everything that stays the same from step to step. */
export interface Model {
  readonly commands: Commands;
  readonly scratch: Scratch;
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly slice: KvSlice;
  /** Undefined without a calibration: then no row may be sparse. */
  readonly roles: readonly LayerRole[] | undefined;
  readonly frequencies: RopeFrequencies;
  readonly exchange: Exchange;
  readonly pacer: SlicePacer;
}

/** The tensors of a batch that every layer uses. */
interface Rows {
  readonly batch: Batch;
  /** f32 [rows, hidden]: the residual stream. */
  readonly x: Tensor;
  /** f32 [rows, hidden]. */
  readonly normed: Tensor;
  readonly table: Tensor;
  readonly rotations: Tensor;
}

/** Runs a batch through all layers; returns the residual rows before the final norm, f32 [rows, hidden]. */
export async function forward(model: Model, batch: Batch, step: number): Promise<Tensor> {
  model.pacer.begin(batch.rows);
  const rows = prepare(model, batch);
  embed(model.commands, {
    weight: model.weights.embedding,
    tokens: upload(model, "tokens", batch.tokens),
    out: rows.x,
    rows: batch.rows,
  });
  for (const [layer, weights] of model.weights.layers.entries()) {
    const kv = model.slice.layers[layer];
    if (kv === undefined) throw new RangeError(`Cannot run layer ${layer}: the slice has ${model.slice.layers.length}`);
    const q = project(model, rows, { weights, kv });
    const attended = attend(model, rows, { layer, kv, q });
    const pending = model.exchange.states({ step, layer, rows: batch.rows }, attended);
    if (pending !== undefined) await pending;
    if (model.roles?.[layer] === "select") {
      for (const run of batch.runs.filter(isSparse)) choose(model, run, { lse: attended.lse, rowTable: rows.table });
    }
    product(model, batch, { weight: weights.output, x: attended.o, y: rows.x, accumulate: true });
    mlp(model, rows, weights);
    if (batch.product === "tiled") await model.pacer.afterLayer(model.commands);
  }
  return rows.x;
}

function prepare(model: Model, batch: Batch): Rows {
  const { scratch, config } = model;
  return {
    batch,
    x: scratch.take(`x (${batch.product})`, "f32", [batch.rows, config.hidden]),
    normed: scratch.take("normed rows", "f32", [batch.rows, config.hidden]),
    table: upload(model, "row table", batch.table, [batch.rows, ROW_WORDS]),
    rotations: upload(model, "rotations", rotations(model.frequencies, batch.positions)),
  };
}

function upload(
  { commands, scratch }: Model,
  name: string,
  data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>,
  shape: readonly number[] = [data.length],
): Tensor {
  const tensor = scratch.take(name, data instanceof Uint32Array ? "u32" : "f32", shape);
  // Writes take effect before the next submit: what was recorded for the batch before must be under way.
  commands.submit();
  commands.gpu.write(tensor, data);
  return tensor;
}

/** y = W·x with the family of the batch: its bits do not depend on the number of rows. */
function product(
  { commands }: Model,
  batch: Batch,
  operands: { readonly weight: Weight; readonly x: Tensor; readonly y: Tensor; readonly accumulate?: boolean },
): void {
  const multiply = batch.product === "tiled" ? matmul : matvec;
  multiply(commands, { ...operands, rows: batch.rows });
}

interface AttendedLayer {
  readonly layer: number;
  readonly kv: KvLayer;
  /** f32 [rows, heads, headDim], rotated. */
  readonly q: Tensor;
}

/** Rotated queries of the batch, f32 [rows, heads, headDim]; its keys and values go into the slice. */
function project(model: Model, rows: Rows, { weights, kv }: { weights: LayerWeights; kv: KvLayer }): Tensor {
  const { commands, scratch, config, slice } = model;
  const { batch } = rows;
  const { heads, kvHeads, headDim } = config;
  rmsNorm(commands, {
    x: rows.x,
    weight: weights.attentionNorm,
    out: rows.normed,
    rows: batch.rows,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const qkv = scratch.take("qkv", "f32", [batch.rows, (heads + 2 * kvHeads) * headDim]);
  product(model, batch, { weight: weights.qkv, x: rows.normed, y: qkv });
  const q = scratch.take("q", "f32", [batch.rows, heads, headDim]);
  ropeAppend(commands, {
    shape: { heads, kvHeads, headDim },
    rows: batch.rows,
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
  return q;
}

/** States of all rows of the batch, over what the layer's role lets them see. */
function attend(model: Model, rows: Rows, { layer, kv, q }: AttendedLayer): AttentionState {
  const { commands, scratch, config, slice } = model;
  const { batch } = rows;
  const { heads, kvHeads, headDim } = config;
  const shape = { heads, kvHeads, headDim };
  const out = {
    o: scratch.take("attention outputs", "f32", [batch.rows, heads, headDim]),
    lse: scratch.take("attention lse", "f32", [batch.rows, heads]),
  };
  const common = {
    shape,
    q,
    kv,
    pageTable: slice.pageTable,
    maxPages: slice.maxPages,
    rowTable: rows.table,
    scale: 1 / Math.sqrt(headDim),
    out,
  };
  const role = model.roles?.[layer] ?? "dense";
  for (const run of batch.runs) {
    const range = { ...common, firstRow: run.first, rows: run.rows, longest: run.longest };
    if (batch.product === "tiled") {
      attendSpan(commands, range);
      continue;
    }
    const splits = scratchShape(shape, run);
    const state = {
      o: scratch.take("split outputs", "f32", splits.o),
      lse: scratch.take("split lse", "f32", splits.lse),
    };
    if (role === "dense" || !isSparse(run)) attendRows(commands, { ...range, scratch: state });
    else if (role === "select") attendRows(commands, { ...range, scratch: state, scores: scoresOf(model, run) });
    else {
      const selection = selectionOf(model, run);
      attendRows(commands, { ...range, longest: selection.stride, scratch: state, selection });
    }
  }
  return out;
}

function mlp(model: Model, rows: Rows, weights: LayerWeights): void {
  const { commands, scratch, config } = model;
  const { batch } = rows;
  rmsNorm(commands, {
    x: rows.x,
    weight: weights.mlpNorm,
    out: rows.normed,
    rows: batch.rows,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const gateUp = scratch.take("gate and up", "f32", [batch.rows, 2 * config.ffn]);
  product(model, batch, { weight: weights.gateUp, x: rows.normed, y: gateUp });
  const activated = scratch.take("activated", "f32", [batch.rows, config.ffn]);
  swiglu(commands, { gateUp, out: activated, rows: batch.rows, width: config.ffn });
  product(model, batch, { weight: weights.down, x: activated, y: rows.x, accumulate: true });
}
