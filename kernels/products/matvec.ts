/**
 * y (+)= x · Wᵀ for the few rows of decode and correction. Knows which kernel suits the adapter and the weight's shape;
 * knows no layers. A row's bits never depend on how many rows come along, because the order over k follows from the
 * weight and the adapter alone.
 */

import { GpuError } from "../errors.ts";
import type { GpuInfo } from "../gpu.ts";
import { canBroadcast, laneProduct, laneProductName, LANES } from "./lane_product.ts";
import type { Commands } from "../pipeline.ts";
import { expectRows, type ProductForm, type Rows, takeRows } from "../rows.ts";
import { digitRows } from "./digit_rows.ts";
import { expectPlaces, placeOperands, placeVariantOf, slotsOf } from "../attention/place_heads.ts";
import { type Multiplied, multiplyRows, type Results } from "./matrix_rows.ts";
import {
  expectGated,
  gateAfter,
  type GatedProduct,
  type HeadProduct,
  inputsFor,
  isGatable,
  MAX_INPUTS,
  placeAfter,
  type Product,
} from "./product.ts";
import { type RowProductCut, rowProductCut } from "./row_tile.ts";
import { teamProduct, teamProductName } from "./team_product.ts";
import { canStoreDigits, multiplyBySubgroups, type SizedCut, subgroupCutFor } from "./subgroup_rows.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { hasFloatParts, type Weight } from "../weights/weight.ts";
import { spread } from "../wgsl.ts";

/**
 * The ways to share the work: a lane for each weight row (software), a team of threads for a few (GPUs), subgroups for a few
 * quantised ones, or matrix units.
 */
export type MatvecPlan = { readonly kind: "lanes"; readonly broadcast: boolean } | TeamPlan | SubgroupPlan | MatrixPlan;

interface MatrixPlan extends RowProductCut {
  readonly kind: "matrix";
}

interface TeamPlan {
  readonly kind: "team";
  /** A power of two; the order over k follows from it. */
  readonly threads: number;
  /** Weight rows of a team when there are few input rows, at least 4; changes no bits. */
  readonly outputs: number;
}

/** By subgroups. */
export interface SubgroupPlan extends SizedCut {
  readonly kind: "subgroups";
}

/** What the choice of a plan without matrix units depends on. */
export type PlainAdapter = Pick<GpuInfo, "software" | "subgroups" | "subgroupSize" | "maxInvocations">;

/** Of a thread: they stay in registers, and the tree that adds them fits in shared memory. */
const MAX_SUMS = 32;
/** Weight rows of a team that places heads: four pairs of dimensions. */
const HEAD_OUTPUTS = 8;
/** Below this many weight rows, tall tiles would leave cores without work. */
const TALL_ROWS = 512;

/** The plan without matrix units for a weight on an adapter; it does not depend on the number of input rows. */
export function planMatvec(info: PlainAdapter, { cols, parts }: Pick<Weight, "cols" | "parts">): MatvecPlan {
  if (info.software) return { kind: "lanes", broadcast: canBroadcast(info) };
  const cut = subgroupCutFor(info, { parts });
  if (cut !== undefined) return { kind: "subgroups", ...cut };
  if (cols >= 8192) return { kind: "team", threads: 128, outputs: 4 };
  return { kind: "team", threads: cols >= 1024 ? 64 : 32, outputs: 4 };
}

/**
 * The plan for few rows, with matrix units where the adapter and the weight allow; it does not depend on the number of input rows
 * either. Rows of x are rounded to halves, as those of prompts are. Quantised weights go by subgroups, which multiply them as
 * integers: what feeds matrix units with halves decodes a weight longer than a row takes by subgroups.
 */
export function planRows(info: GpuInfo, weight: Pick<Weight, "cols" | "parts">): MatvecPlan {
  const plain = planMatvec(info, weight);
  if (plain.kind === "subgroups" || hasFloatParts(weight)) return plain;
  const cut = rowProductCut(info);
  return cut === undefined ? plain : { kind: "matrix", ...cut };
}

/** The form of rows that a plan reads. */
export function matvecForm({ kind }: MatvecPlan): ProductForm {
  switch (kind) {
    case "matrix":
      return "f16";
    case "subgroups":
      return "digits";
    case "team":
    case "lanes":
      return "f32";
  }
}

/** Plans take rows in their form, and f32 rows, which they convert. */
function expectForm({ x, rows, weight: { cols } }: Pick<Product, "x" | "rows" | "weight">, plan: MatvecPlan): void {
  const form = matvecForm(plan);
  if (plan.kind !== "matrix") expectRows("matvec", x, { rows, cols, forms: ["f32", form] });
}

/**
 * Computes y = x · Wᵀ, or y += x · Wᵀ, in f32, for any number of rows; meant for at most a few dozen.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the plan does not read
 */
export function matvec(commands: Commands, product: Product, plan?: MatvecPlan): void {
  const { weight, x, y, rows } = product;
  expectRows("matvec", x, { rows, cols: weight.cols });
  expectTensor("matvec", y, "f32", [rows, weight.rows]);
  if (rows === 0) return;
  const chosen = plan ?? planMatvec(commands.gpu.info, weight);
  expectForm(product, chosen);
  dispatch(commands, { ...product, results: storedTo(y) }, chosen);
}

/**
 * Computes out = activation(x · Gᵀ) · (x · Uᵀ) for any number of rows; meant for at most a few dozen.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the plan does not read
 */
export function gatedMatvec(commands: Commands, product: GatedProduct, plan?: MatvecPlan): void {
  const { weight, x, out, rows, activation } = product;
  expectGated("matvec", product);
  expectRows("matvec", x, { rows, cols: weight.cols });
  if (rows === 0) return;
  const chosen = plan ?? planMatvec(commands.gpu.info, weight);
  const { tensor: y, form } = out;
  expectForm(product, chosen);
  if (form === "digits") {
    gateToDigits(commands, { ...product, out: { tensor: y, form } }, chosen);
  } else if (!isGatable(weight) || (chosen.kind !== "matrix" && form !== "f32")) {
    gateAfter(commands, product, (whole) => matvec(commands, whole, chosen));
  } else dispatch(commands, { ...product, results: { ...storedTo(y), gate: { activation, form } } }, chosen);
}

/** By the kernel of the product where it takes so few rows, or by one that gates all results, or else by one after either. */
function gateToDigits(
  commands: Commands,
  product: GatedProduct & { readonly out: Rows<"digits"> },
  plan: MatvecPlan,
): void {
  const { weight, out, rows, activation, scratch } = product;
  if (!isGatable(weight)) {
    gateAfter(commands, product, (whole) => matvec(commands, whole, plan));
  } else if (plan.kind === "subgroups" && canStoreDigits(rows)) {
    const results = { ...storedTo(out.tensor), gate: { activation, form: out.form } };
    multiplyBySubgroups(commands, { ...product, results }, plan);
  } else {
    const shape = { rows, cols: weight.rows / 2 };
    const gated = takeRows(scratch, "gated rows", { form: "f32", ...shape });
    gatedMatvec(commands, { ...product, out: gated }, plan);
    digitRows(commands, { x: gated, out, ...shape });
  }
}

/**
 * Computes the heads of a layer, q, k and v of each row, and places them, for any number of rows; meant for at most a few dozen.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, rows are in a form that the plan does not read, or the
 * weight has no row for each dimension of a head
 */
export function headMatvec(commands: Commands, product: HeadProduct, plan?: MatvecPlan): void {
  const { weight, x, rows, heads } = product;
  const { shape } = heads;
  const width = slotsOf(shape) * shape.headDim;
  if (weight.rows !== width) {
    throw new GpuError("invalid_shape", `Cannot dispatch matvec: ${weight.rows} rows of q, k and v, expected ${width}`);
  }
  expectRows("matvec", x, { rows, cols: weight.cols });
  expectPlaces("matvec", rows, heads);
  if (rows === 0) return;
  const chosen = plan ?? planMatvec(commands.gpu.info, weight);
  expectForm(product, chosen);
  if (isGatable(weight) && placesHeads(chosen, rows)) {
    const { tensors, params } = placeOperands(rows, heads);
    const results = { tensors, params, heads: placeVariantOf(heads) };
    dispatch(commands, { ...product, results }, chosen);
  } else placeAfter(commands, product, (whole) => matvec(commands, whole, chosen));
}

/** Whether the kernel of a plan places heads itself: a team needs eight weight rows for that, too many for many rows. */
function placesHeads({ kind }: MatvecPlan, rows: number): boolean {
  return kind === "matrix" || kind === "subgroups" || (kind === "team" && rows * HEAD_OUTPUTS <= MAX_SUMS);
}

/** To y as they are. */
function storedTo(y: Tensor): Results {
  return { tensors: [y], params: {} };
}

function dispatch(commands: Commands, product: Multiplied, plan: MatvecPlan): void {
  if (plan.kind === "lanes") byLanes(commands, product, plan.broadcast);
  else if (plan.kind === "matrix") multiplyRows(commands, product, plan);
  else if (plan.kind === "subgroups") multiplyBySubgroups(commands, product, plan);
  else byTeams(commands, product, plan);
}

function byLanes(
  commands: Commands,
  { weight, x, rows, accumulate = false, results: { gate, tensors } }: Multiplied,
  broadcast: boolean,
): void {
  // More weight rows of a lane mean fewer loads of inputs.
  const outputs = commands.gpu.info.loadsByLane && weight.rows >= TALL_ROWS ? 8 : 4;
  for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
    const tile = { dtype, accumulate, inputs: inputsFor(rows), outputs, broadcast, ...(gate && { gate }) };
    commands.dispatch(commands.kernel(laneProductName(tile), () => laneProduct(tile)), {
      tensors: [tensor, x.tensor, ...tensors],
      params: { rows, partRows, firstRow, weightRows: weight.rows, eights: weight.cols / 8 },
      groups: [Math.ceil(partRows / (LANES * outputs)), Math.ceil(rows / tile.inputs), 1],
    });
  }
}

function byTeams(
  commands: Commands,
  { weight, x, rows, accumulate = false, results }: Multiplied,
  { threads, outputs }: TeamPlan,
): void {
  const { tensors, params, ...pairing } = results;
  const most = pairing.heads === undefined ? outputs : HEAD_OUTPUTS;
  for (let firstInput = 0; firstInput < rows; firstInput += MAX_INPUTS) {
    const inputs = inputsFor(rows - firstInput);
    for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
      const tile = {
        ...{ dtype, accumulate, threads, inputs, outputs: Math.min(most, MAX_SUMS / inputs) },
        ...pairing,
      };
      commands.dispatch(commands.kernel(teamProductName(tile), () => teamProduct(tile)), {
        tensors: [tensor, x.tensor, ...tensors],
        params: {
          ...{ rows, firstInput, partRows, firstRow, weightRows: weight.rows, eights: weight.cols / 8 },
          ...params,
        },
        groups: spread(Math.ceil(partRows / tile.outputs)),
      });
    }
  }
}
