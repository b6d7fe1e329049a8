/**
 * One batch on its way through the layers: its rows on the GPU, the layers ahead of it, and what every layer does with
 * rows. `forward.ts` says in which order.
 */

import type { Weight } from "../../kernels/weights/weight.ts";
import { type RmsNorm, rmsNorm } from "../../kernels/rms_norm.ts";
import { floatRows, type ProductForm, type Rows, takeRows } from "../../kernels/rows.ts";
import type { Product } from "../../kernels/products/product.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { ArrivingStates, ExchangePoint } from "../exchange.ts";
import type { KvLayer } from "../kv/kv_slice.ts";
import type { LayerRole } from "../layer_plan.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { LayerWeights } from "../model/weights.ts";
import type { RowBatch, SequencePiece } from "../row_batch.ts";
import type { SlicePacer } from "./pacer.ts";
import { PassProgress } from "./pass_progress.ts";
import { type KeyCopies, takeKeyCopies } from "./key_copies.ts";
import { UnsentKeys } from "./key_places.ts";
import type { PassInputs } from "./pass_inputs.ts";
import { type RowCopies, takeRowCopies } from "./row_copies.ts";
import { uploadReplicaTables } from "./replica_tables.ts";
import type { BatchCounter } from "./read_counter.ts";
import { multiply, rowFormFor } from "./products.ts";
import type { SelectionReport } from "./selection_report.ts";

/** Layers that are submitted together: recording a decode row takes a good part of the time that it computes. */
const LAYERS_A_SUBMIT = 4;

/** One layer of the model, as a pass goes through it. */
export interface PassLayer {
  readonly index: number;
  readonly weights: LayerWeights;
  readonly kv: KvLayer;
  readonly role: LayerRole;
  /** Whether it has a window of its own: see `ModelConfig.localLayers`. */
  readonly isLocal: boolean;
}

/** What a pass takes besides its model and batch. */
export interface PassOptions extends Omit<ExchangePoint, "layer"> {
  /** Of the step: copies of their sequences do not give way. @default those of the batch */
  readonly staying?: readonly SequencePiece[];
  /** Of batches before it that its rows see, and that may be under way. @default none */
  readonly earlier?: readonly PassProgress[];
  /** What the step has sent of batches that this worker computes for all. @default nothing */
  readonly unsent?: UnsentKeys;
  /** Of the batch itself, for those after it. @default nothing waits for it */
  readonly progress?: PassProgress;
  readonly counter: BatchCounter;
  readonly report: SelectionReport;
  readonly inputs: PassInputs;
}

/** A batch and its tensors, from its tokens to its last residual rows. */
export class Pass {
  readonly model: LoadedModel;
  readonly batch: RowBatch;
  readonly counter: BatchCounter;
  readonly report: SelectionReport;
  readonly layers: readonly PassLayer[];
  readonly inputs: PassInputs;
  /** Of a batch that this worker computes for all; undefined where queries travel, or nothing does. */
  readonly keyCopies: KeyCopies | undefined;
  /** Of rows that every worker computes; undefined where no sequence is copied. */
  readonly rowCopies: RowCopies | undefined;
  /** f32 [computed, hidden]: the residual stream. */
  readonly x: Tensor;
  /** What sparse layers have found so far. */
  readonly replicated: { chosen: number; missing: number } = { chosen: 0, missing: 0 };
  /** How far it has come. */
  readonly progress: PassProgress;
  readonly #earlier: readonly PassProgress[];
  readonly #point: Omit<ExchangePoint, "layer">;
  readonly #pacer: SlicePacer | undefined;
  readonly #sparseTable: Tensor | undefined;
  #selectionHolders: readonly boolean[] | undefined;
  #arriving: ArrivingStates | undefined;

  constructor(model: LoadedModel, batch: RowBatch, options: PassOptions) {
    const { counter, report, inputs, staying, earlier = [], unsent = new UnsentKeys(), progress, ...point } = options;
    const { scratch } = model;
    this.model = model;
    this.batch = batch;
    this.counter = counter;
    this.report = report;
    this.#point = point;
    this.#earlier = earlier;
    this.layers = layersOf(model);
    this.progress = progress ?? new PassProgress(this.layers.length);
    const isAlone = batch.computer !== undefined;
    const { rowTable, sparseTable } = (isAlone ? undefined : uploadReplicaTables(model, batch)) ?? {};
    this.#sparseTable = sparseTable;
    this.keyCopies = isAlone ? takeKeyCopies(model, batch, { unsent, batch: point.batch }) : undefined;
    this.rowCopies = isAlone ? undefined : takeRowCopies(model, batch, staying);
    this.inputs = rowTable === undefined ? inputs : { ...inputs, rowTable, computedTable: rowTable };
    this.#pacer = this.keyCopies === undefined ? pacerOf(model, batch) : undefined;
    this.#pacer?.begin(batch.rows);
    this.x = scratch.take(`x (${batch.product})`, "f32", [this.computed, model.config.hidden]);
  }

  /** Rows that this worker computes. */
  get computed(): number {
    return this.inputs.computed;
  }

  /** Where an exchange of this layer happens. */
  pointAt({ index }: Pick<PassLayer, "index">): ExchangePoint {
    return { ...this.#point, layer: index };
  }

  /** u32 [rows of the batch, 8]: what the rows see in a layer. */
  tableAt({ role, isLocal }: Pick<PassLayer, "role" | "isLocal">): Tensor {
    const { rowTable, localTable } = this.inputs;
    if (isLocal) return localTable;
    return (role === "sparse" ? this.#sparseTable : undefined) ?? rowTable;
  }

  /** Whether all that the rows see in a layer is on this worker. */
  isWhole({ role }: Pick<PassLayer, "role">): boolean {
    return role === "sparse" && this.batch.replicated;
  }

  /** By worker: whether it holds anything that rows of the batch read in this layer. */
  holdersAt({ role }: Pick<PassLayer, "role">): readonly boolean[] {
    return (role === "sparse" ? this.#selectionHolders : undefined) ?? this.batch.holders;
  }

  /** Waits until the keys and values of the rows before its own are recorded in a layer. */
  async afterEarlier({ index }: Pick<PassLayer, "index">): Promise<void> {
    const since = performance.now();
    for (const progress of this.#earlier) await progress.reached(index);
    this.model.exchange.waitedForKeys(performance.now() - since);
  }

  /** The sparse layers to come read a selection of the group, of which these workers hold any row. */
  setSelectionHolders(holders: readonly boolean[]): void {
    this.#selectionHolders = holders;
  }

  /** What is recorded from here on reads states of peers that are still on their way. */
  expect(arriving: ArrivingStates | undefined): void {
    this.#arriving = arriving;
  }

  /** Waits until all that was recorded reads is there; to be called before anything is submitted. */
  async arrive(): Promise<void> {
    const arriving = this.#arriving;
    this.#arriving = undefined;
    await arriving?.arrive();
  }

  /** @returns the residual rows, normed where there is a norm, as the product with `weight` reads them; until the next norm */
  norm(norm: Tensor | undefined, weight: Weight): Rows<ProductForm> {
    if (norm === undefined) return floatRows(this.x);
    const { scratch } = this.model;
    const out = takeRows(scratch, "normed rows", {
      form: this.#formFor(weight),
      rows: this.computed,
      cols: weight.cols,
    });
    this.#norm({ x: this.x, weight: norm, out });
    return out;
  }

  /**
   * Working memory for the computed rows that the product with a weight reads, in the form in which it does.
   * @param digits whether what fills it can make digits; if not, and the product reads those, it is f32. @default it can
   * @param rows @default the computed rows
   */
  rowsFor(
    weight: Weight,
    name: string,
    { digits = true, rows = this.computed }: { readonly digits?: boolean; readonly rows?: number } = {},
  ): Rows<ProductForm> {
    const form = this.#formFor(weight);
    const stored = form === "digits" && !digits ? "f32" : form;
    return takeRows(this.model.scratch, name, { form: stored, rows, cols: weight.cols });
  }

  #formFor(weight: Weight): ProductForm {
    return rowFormFor(this.model.commands, this.batch.product, { weight, rows: this.computed });
  }

  /** x += W·rows of the computed rows, normed before they are added where there is a norm. */
  add(
    { weight, rows, norm }: {
      readonly weight: Weight;
      readonly rows: Rows<ProductForm>;
      readonly norm: Tensor | undefined;
    },
  ): void {
    if (norm === undefined) {
      this.multiply({ weight, x: rows, y: this.x, accumulate: true });
      return;
    }
    const { scratch, config } = this.model;
    const added = scratch.take("rows to be normed and added", "f32", [this.computed, config.hidden]);
    this.multiply({ weight, x: rows, y: added });
    this.#norm({ x: added, weight: norm, out: floatRows(this.x), accumulate: true });
  }

  #norm(operands: Pick<RmsNorm, "x" | "weight" | "out" | "accumulate">): void {
    const { commands, config } = this.model;
    rmsNorm(commands, { ...operands, rows: this.computed, cols: config.hidden, epsilon: config.rmsNormEps });
  }

  /** y = W·x, or y += W·x, of the computed rows, with the products of the batch's family. */
  multiply(operands: Pick<Product, "weight" | "x" | "y" | "accumulate">): void {
    const { commands, scratch } = this.model;
    multiply(commands, this.batch.product, { ...operands, rows: this.computed, scratch });
  }

  /** Submits what is worth submitting, and yields when a long pass has held the GPU for long enough. */
  async afterLayer({ index }: PassLayer): Promise<void> {
    const { commands } = this.model;
    // The GPU computes these layers while the next ones are recorded; a layer that exchanges is submitted by the next one.
    if (index % LAYERS_A_SUBMIT === LAYERS_A_SUBMIT - 1 && this.#arriving === undefined) commands.submit();
    await this.pace();
  }

  /** To be called after each layer: yields when a long pass has held the GPU long enough. */
  async pace(): Promise<void> {
    if (this.#pacer === undefined) return;
    await this.arrive();
    await this.#pacer.afterLayer(this.model.commands);
  }
}

function pacerOf({ pacers }: LoadedModel, { product, runs }: RowBatch): SlicePacer | undefined {
  if (product === "tiled") return pacers.prefill;
  return runs.some(({ blocks }) => blocks.length > 0) ? pacers.blocks : undefined;
}

function layersOf({ weights, slice, roles, config: { localLayers } }: LoadedModel): PassLayer[] {
  return weights.layers.map((layer, index) => {
    const kv = slice.layers[index];
    if (kv === undefined) throw new RangeError(`Cannot run layer ${index}: the slice has ${slice.layers.length}`);
    return {
      index,
      weights: layer,
      kv,
      role: roles?.[index] ?? "dense",
      isLocal: localLayers?.isLocal[index] ?? false,
    };
  });
}
