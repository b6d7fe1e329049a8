/**
 * The layer loop: residual rows in, residual rows out, keys and values appended to the slice. Reads like the design's
 * "one layer, on every worker". Knows layers and their roles; knows nothing of sequences, sampling or peers.
 */

import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import { embed } from "../../kernels/products/embed.ts";
import { matmul } from "../../kernels/products/matmul.ts";
import { matvec } from "../../kernels/products/matvec.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { ROW_WORDS } from "../../kernels/attention/row_table.ts";
import type { Scratch } from "../../kernels/scratch.ts";
import { swiglu } from "../../kernels/swiglu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Weight } from "../../kernels/products/weight.ts";
import { attend, type LayerInput, projectQueries } from "./attention.ts";
import type { Batch } from "./batch_plan.ts";
import type { DraftLogits } from "../logits/draft_logits.ts";
import type { Exchange, ExchangePoint } from "../exchange.ts";
import type { KvSlice } from "../kv/kv_slice.ts";
import { type LayerRole, readersOf } from "../layer_plan.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { SlicePacer } from "./pacer.ts";
import type { PageShare } from "../page_map.ts";
import type { BatchTally } from "./read_counter.ts";
import { type RopeFrequencies, rotations } from "../model/rope.ts";
import { ownRanges } from "./row_ranges.ts";
import { choose, isSparse, type SharedSelection, shareSelection } from "./selection.ts";
import type { LayerWeights, Weights } from "../model/weights.ts";

/** Layers that are submitted together: recording a decode row takes a good part of the time that it computes. */
const LAYERS_A_SUBMIT = 4;

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
  /** What this worker holds of every sequence. */
  readonly share: PageShare;
  readonly exchange: Exchange;
  readonly pacers: { readonly prefill: SlicePacer; readonly spans: SlicePacer };
  /** Logits of sparse rows that await an audit; the lead's only. */
  readonly drafts: DraftLogits;
}

/** The tensors of a batch that every layer uses. Rows that are split lie one own range behind the other. */
export interface Rows {
  readonly batch: Batch;
  /** Rows that this worker computes. */
  readonly computed: number;
  /** f32 [computed, hidden]: the residual stream. */
  readonly x: Tensor;
  /** f32 [computed, hidden]. */
  readonly normed: Tensor;
  /** f32 [computed, headDim / 2, 2]. */
  readonly rotations: Tensor;
  /** Of the computed rows, for appending. */
  readonly table: Tensor;
  /** Of all rows of the batch, for attending. */
  readonly wholeTable: Tensor;
}

/**
 * Runs a batch through all layers.
 * @returns the residual rows that this worker computes, before the final norm, f32 [computed, hidden]
 */
export async function forward(
  model: Model,
  batch: Batch,
  { step, batch: index, tally }: Omit<ExchangePoint, "layer"> & { readonly tally: BatchTally },
): Promise<Tensor> {
  const pacer = pacerOf(model, batch);
  pacer?.begin(batch.rows);
  const rows = prepare(model, batch);
  let chosen: SharedSelection | undefined;
  for (const [layer, weights] of model.weights.layers.entries()) {
    const kv = model.slice.layers[layer];
    if (kv === undefined) throw new RangeError(`Cannot run layer ${layer}: the slice has ${model.slice.layers.length}`);
    const role = model.roles?.[layer] ?? "dense";
    const point = { step, batch: index, layer };
    const holders = (role === "sparse" ? chosen?.holders : undefined) ?? batch.holders;
    const attended = await attention(model, rows, { input: { weights, kv, role }, point, holders });
    let choosing: Promise<SharedSelection> | undefined;
    if (role === "select" && batch.sparse.length > 0) {
      const choice = { tally, readers: readersOf(model.roles ?? [], layer) };
      for (const run of batch.runs.filter(isSparse)) {
        choose(model, run, { lse: attended.lse, rowTable: rows.wholeTable, ...choice });
      }
      const shared = shareSelection(model, batch, point, choice);
      // Once the candidates are read the queue is empty: the rest of the layer overlaps with the router's merge.
      if (shared !== undefined) await shared.read;
      choosing = shared?.chosen;
    }
    product(model, rows, { weight: weights.output, x: attended.o, y: rows.x, accumulate: true });
    mlp(model, rows, weights);
    if (choosing !== undefined) {
      model.commands.submit();
      chosen = await choosing;
    }
    // The GPU computes these layers while the next ones are recorded.
    if (layer % LAYERS_A_SUBMIT === LAYERS_A_SUBMIT - 1) model.commands.submit();
    await pacer?.afterLayer(model.commands);
  }
  return rows.x;
}

/** The attention of a layer over all workers: states of the computed rows. */
async function attention(
  model: Model,
  rows: Rows,
  { input, point, holders }: {
    readonly input: LayerInput;
    readonly point: ExchangePoint;
    readonly holders: readonly boolean[];
  },
): Promise<AttentionState> {
  const { commands, scratch, config, exchange } = model;
  const { batch } = rows;
  const { heads, headDim } = config;
  const q = projectQueries(model, rows, { ...input, product: (operands) => product(model, rows, operands) });
  if (batch.ranges !== undefined) {
    const sent = exchange.queries(point, batch.ranges, { tensor: q, rowBytes: heads * headDim * 4 });
    if (sent !== undefined) await sent;
  }
  const own = attend(model, rows, { ...input, q, holds: holders[model.share.index] ?? false });
  const merged = {
    o: scratch.take("merged outputs", "f32", [rows.computed, heads, headDim]),
    lse: scratch.take("merged lse", "f32", [rows.computed, heads]),
  };
  const states = { own: { ...own, rows: batch.rows, heads, headDim }, merged, holders };
  const merging = exchange.states(point, batch.ranges, states);
  if (merging === undefined) return own;
  commands.submit();
  await merging;
  return merged;
}

/** Of work that may take long: prefill, and dense decode spans of many rows. */
function pacerOf({ pacers }: Model, { product, runs }: Batch): SlicePacer | undefined {
  if (product === "tiled") return pacers.prefill;
  return runs.some(({ spans }) => spans.length > 0) ? pacers.spans : undefined;
}

function prepare(model: Model, batch: Batch): Rows {
  const { commands, scratch, config, weights, share } = model;
  const { tokens, positions, table } = batch.ranges === undefined
    ? batch
    : pick(batch, ownRanges(batch.ranges, share.index));
  const computed = tokens.length;
  const x = scratch.take(`x (${batch.product})`, "f32", [computed, config.hidden]);
  const wholeTable = upload(model, "row table", batch.table, [batch.rows, ROW_WORDS]);
  const rows = {
    batch,
    computed,
    x,
    normed: scratch.take("normed rows", "f32", [computed, config.hidden]),
    rotations: upload(model, "rotations", rotations(model.frequencies, positions)),
    table: batch.ranges === undefined ? wholeTable : upload(model, "own row table", table, [computed, ROW_WORDS]),
    wholeTable,
  };
  embed(commands, { weight: weights.embedding, tokens: upload(model, "tokens", tokens), out: x, rows: computed });
  return rows;
}

/** What belongs to the rows of some ranges, one range behind the other. */
function pick(
  { tokens, positions, table }: Batch,
  ranges: readonly { readonly first: number; readonly rows: number; readonly at: number }[],
): Pick<Batch, "tokens" | "positions" | "table"> {
  const count = ranges.reduce((sum, { rows }) => sum + rows, 0);
  const picked = {
    tokens: new Uint32Array(count),
    positions: new Uint32Array(count),
    table: new Uint32Array(count * ROW_WORDS),
  };
  for (const { first, rows, at } of ranges) {
    picked.tokens.set(tokens.subarray(first, first + rows), at);
    picked.positions.set(positions.subarray(first, first + rows), at);
    picked.table.set(table.subarray(first * ROW_WORDS, (first + rows) * ROW_WORDS), at * ROW_WORDS);
  }
  return picked;
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
  { batch, computed }: Rows,
  operands: { readonly weight: Weight; readonly x: Tensor; readonly y: Tensor; readonly accumulate?: boolean },
): void {
  const multiply = batch.product === "tiled" ? matmul : matvec;
  multiply(commands, { ...operands, rows: computed });
}

function mlp(model: Model, rows: Rows, weights: LayerWeights): void {
  const { commands, scratch, config } = model;
  const { computed } = rows;
  rmsNorm(commands, {
    x: rows.x,
    weight: weights.mlpNorm,
    out: rows.normed,
    rows: computed,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const gateUp = scratch.take("gate and up", "f32", [computed, 2 * config.ffn]);
  product(model, rows, { weight: weights.gateUp, x: rows.normed, y: gateUp });
  const activated = scratch.take("activated", "f32", [computed, config.ffn]);
  swiglu(commands, { gateUp, out: activated, rows: computed, width: config.ffn });
  product(model, rows, { weight: weights.down, x: activated, y: rows.x, accumulate: true });
}
