/**
 * y (+)= x · Wᵀ for the many rows of a prefill chunk. Knows which kernel suits the adapter; knows no layers. A row's bits
 * never depend on the other rows: all variants add in ascending k, and nothing is split over k.
 */

import type { GpuInfo } from "../gpu.ts";
import { asHalves } from "./half_rows.ts";
import { canBroadcast, laneProduct, laneProductName, LANES, type LaneTile } from "./lane_product.ts";
import { type MatrixUnits, matrixUnitsOf } from "../matrix_wgsl.ts";
import { matrixProduct } from "./matrix_product.ts";
import { matrixProductName, type ProductTile } from "./matrix_product_plan.ts";
import type { Commands, Kernel } from "../pipeline.ts";
import { expectRows, plainRows, type RowForm } from "../rows.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { expectGated, gateAfter, type GatedProduct, isGatable, type Product, type ProductGate } from "./product.ts";
import type { TileSize } from "./tile_choice.ts";
import { tiledProduct, tiledProductName } from "./tiled_product.ts";
import { decodePart, isDecodable } from "../weights/decode_part.ts";
import { hasFloatParts, type Weight, type WeightPart } from "../weights/weight.ts";
import type { WeightDType } from "../weights/format.ts";
import { spread } from "../wgsl.ts";

/** The ways to cut the work: lanes without shared memory (software), square tiles (GPUs), or tiles on matrix units. */
export type MatmulPlan =
  | LanePlan
  | { readonly kind: "tiles"; readonly side: 64 | 128 }
  | MatrixPlan;

interface LanePlan extends Pick<LaneTile, "inputs" | "outputs" | "broadcast"> {
  readonly kind: "lanes";
}

interface MatrixPlan extends MatrixUnits {
  readonly kind: "matrix";
  readonly tile: ProductTile;
  /** Whether quantised weights become halves in memory first; changes no bits. */
  readonly decoded: boolean;
}

/** Rows from which on each tile would decode longer than a kernel that decodes the weight once. */
const DECODED_ROWS = 512;

/**
 * Where loads are made lane by lane, more inputs a lane mean fewer loads of weights, which cost most once the loads of inputs are
 * shared. Elsewhere sums that stay in registers count: 256 rows by [1536, 256] take 8.6 ms so, 12.0 by the tile of 16, which also
 * compiles eight times as long (Mesa 25, LLVM 19, two cores, 2026-11-27).
 */
const LANE_PLANS = {
  plain: { kind: "lanes", inputs: 8, outputs: 8, broadcast: false },
  loadsByLane: { kind: "lanes", inputs: 16, outputs: 8, broadcast: true },
  loadsAtOnce: { kind: "lanes", inputs: 8, outputs: 2, broadcast: true },
} as const satisfies Record<string, LanePlan>;
/** Fewer large tiles than this leave processors idle: small ones it is. */
const ENOUGH_TILES = 256;
const ENOUGH_MATRIX_TILES = 128;

/** On an H200, 2048 rows by 6144 × 4096: 244 TFLOP/s with the first, 160 with half the outputs a subgroup. */
const LARGE_TILE: ProductTile = { rows: 128, outputs: 128, depth: 32, subgroupRows: 64, subgroupOutputs: 64 };
/**
 * For a processor that computes one tile at a time: there are no more of them, or their workgroup memory leaves no room for a
 * second one, as with gates (2048 rows by 28672 × 4096, gated: 261 TFLOP/s, 177 with half the depth; q8 162 and 131, q4 196 and
 * 147, each decoded in the tile). Where two are computed in turn, each waits for less with half the depth.
 */
const DEEP_TILE: ProductTile = { ...LARGE_TILE, depth: 64 };
const ENOUGH_TILES_FOR_TURNS = 512;
const SMALL_TILE: ProductTile = { rows: 64, outputs: 64, depth: 32, subgroupRows: 32, subgroupOutputs: 32 };
/** For instructions of 8 × 8. */
const SMALL_INSTRUCTION_TILE: ProductTile = {
  rows: 16,
  outputs: 32,
  depth: 32,
  subgroupRows: 8,
  subgroupOutputs: 16,
};

/** What the choice of a plan depends on. */
export type MatmulAdapter = Pick<
  GpuInfo,
  "software" | "loadsByLane" | "matrix" | "subgroups" | "subgroupSize" | "maxBindingBytes" | "maxBufferBytes"
>;

/** What a plan may depend on besides shapes. */
export interface PlanOptions {
  /** Of tiles, where there are any. @default large where there are enough of them to keep all processors busy */
  readonly size?: TileSize | undefined;
  /** Whether the results are gated. @default false */
  readonly gated?: boolean;
}

/** The plan for a product on an adapter. */
export function planMatmul(
  info: MatmulAdapter,
  rows: number,
  weight: Omit<Weight, "label">,
  options: PlanOptions = {},
): MatmulPlan {
  return planMatrices(info, { rows, weight, ...options }) ?? planPlain(info, { rows, weight, ...options });
}

interface SizedProduct extends PlanOptions {
  readonly rows: number;
  readonly weight: Omit<Weight, "label">;
}

/** Undefined where there are no matrix units, or the weight is nothing for them: a binding must hold a fragment of results. */
function planMatrices(info: MatmulAdapter, product: SizedProduct): MatmulPlan | undefined {
  const { weight } = product;
  const units = matrixUnitsOf(info);
  if (units === undefined || hasFloatParts(weight)) return undefined;
  const { shape } = units;
  const decoded = product.rows >= DECODED_ROWS && isDecodable(info, weight);
  const tile = shape.m < 16 ? SMALL_INSTRUCTION_TILE : tileFor(product, decoded);
  const fits = weight.cols % tile.depth === 0 && weight.rows >= shape.m * shape.n;
  return fits ? { kind: "matrix", ...units, tile, decoded } : undefined;
}

function tileFor({ rows, weight, size, gated = false }: SizedProduct, decoded: boolean): ProductTile {
  const tiles = Math.ceil(rows / LARGE_TILE.rows) * Math.ceil(weight.rows / LARGE_TILE.outputs);
  const isLarge = size === undefined ? tiles >= ENOUGH_MATRIX_TILES : size === "large";
  if (!isLarge) return SMALL_TILE;
  if (weight.cols % DEEP_TILE.depth !== 0) return LARGE_TILE;
  // Formats that are decoded on their way to workgroup memory need registers for that.
  const isPlain = decoded || weight.parts.every(({ dtype }) => dtype === "f16");
  return gated || (isPlain && tiles < ENOUGH_TILES_FOR_TURNS) ? DEEP_TILE : LARGE_TILE;
}

function planPlain(info: MatmulAdapter, { rows, weight, size }: SizedProduct): MatmulPlan {
  if (info.software) return planLanes(info);
  const enough = rows > 64 && Math.ceil(rows / 128) * Math.ceil(weight.rows / 128) >= ENOUGH_TILES;
  return { kind: "tiles", side: (size === undefined ? enough : size === "large") ? 128 : 64 };
}

function planLanes(info: MatmulAdapter): LanePlan {
  if (!canBroadcast(info)) return LANE_PLANS.plain;
  return info.loadsByLane ? LANE_PLANS.loadsByLane : LANE_PLANS.loadsAtOnce;
}

/** The form of rows that a plan reads. Halves are enough: their error is of the size of that of the f16 cache that the rows end in. */
export function matmulForm({ kind }: MatmulPlan): RowForm {
  return kind === "matrix" ? "f16" : "f32";
}

/**
 * Computes y = x · Wᵀ, or y += x · Wᵀ, in f32, for any number of rows; meant for many.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the plan does not read
 */
export function matmul(commands: Commands, product: Product, plan?: MatmulPlan): void {
  const { weight, x, y, rows } = product;
  expectRows("matmul", x, { rows, cols: weight.cols });
  expectTensor("matmul", y, "f32", [rows, weight.rows]);
  if (rows === 0) return;
  const chosen = plan ?? choosePlan(commands, { rows, weight });
  if (chosen.kind !== "matrix") expectRows("matmul", x, { rows, cols: weight.cols, forms: ["f32"] });
  dispatchParts(commands, product, prepare(commands, product, chosen));
}

/**
 * Computes out = activation(x · Gᵀ) · (x · Uᵀ) for any number of rows; meant for many.
 * @throws {GpuError} `invalid_shape` when a tensor is too small, or rows are in a form that the plan does not read
 */
export function gatedMatmul(commands: Commands, product: GatedProduct, plan?: MatmulPlan): void {
  const { weight, x, out, rows, activation } = product;
  expectGated("matmul", product);
  expectRows("matmul", x, { rows, cols: weight.cols });
  if (rows === 0) return;
  const chosen = plan ?? choosePlan(commands, { rows, weight, gated: true });
  const { tensor: y, form } = plainRows("matmul", out);
  if (!isGatable(weight) || chosen.kind === "tiles" || (chosen.kind === "lanes" && form !== "f32")) {
    gateAfter(commands, product, (whole) => matmul(commands, whole, chosen));
    return;
  }
  if (chosen.kind === "lanes") expectRows("matmul", x, { rows, cols: weight.cols, forms: ["f32"] });
  const gated = { ...product, y, gate: { activation, form } };
  dispatchParts(commands, gated, prepare(commands, gated, chosen));
}

function choosePlan(
  { gpu, tiles }: Commands,
  { rows, weight, gated = false }: Pick<SizedProduct, "rows" | "weight" | "gated">,
): MatmulPlan {
  return planMatmul(gpu.info, rows, weight, { size: tiles.sizeFor(rows, weight), gated });
}

function dispatchParts(
  commands: Commands,
  { weight, y, rows }: Pick<Product, "weight" | "y" | "rows">,
  { kernel, input, groups, part: prepared = (part) => part }: Prepared,
): void {
  for (const part of weight.parts) {
    const { tensor, dtype, firstRow, rows: partRows } = prepared(part);
    commands.dispatch(kernel(dtype), {
      tensors: [tensor, input, y],
      params: { rows, partRows, firstRow, weightRows: weight.rows, eights: weight.cols / 8 },
      groups: groups(partRows),
    });
  }
}

interface Prepared {
  /** For parts of a format. */
  readonly kernel: (dtype: WeightDType) => Kernel;
  /** x as the kernel reads it. */
  readonly input: Tensor;
  readonly groups: (partRows: number) => [number, number, number];
  /** What is multiplied in place of a part, until the next one. @default the part */
  readonly part?: (part: WeightPart) => WeightPart;
}

/** A product; given a gate, y takes what it makes of the results. */
type MaybeGated = Product & { readonly gate?: ProductGate };

function prepare(commands: Commands, product: MaybeGated, plan: MatmulPlan): Prepared {
  if (plan.kind === "matrix") return matrixKernel(commands, product, plan);
  return plan.kind === "lanes" ? laneKernel(commands, product, plan) : tileKernel(commands, product, plan.side);
}

function matrixKernel(
  commands: Commands,
  { weight, x, rows, accumulate = false, scratch, gate }: MaybeGated,
  { kind: _, decoded, ...cut }: MatrixPlan,
): Prepared {
  const { tensor } = asHalves(commands, scratch, { x, rows, cols: weight.cols });
  return {
    kernel: (dtype) => {
      const variant = { ...cut, dtype, accumulate, ...(gate && { gate }) };
      return commands.kernel(matrixProductName(variant), () => matrixProduct(variant));
    },
    input: tensor,
    groups: (partRows) => spread(Math.ceil(rows / cut.tile.rows) * Math.ceil(partRows / cut.tile.outputs)),
    ...(decoded && { part: (part: WeightPart) => decodePart(commands, { part, cols: weight.cols, scratch }) }),
  };
}

function laneKernel(
  commands: Commands,
  { x, rows, accumulate = false, gate }: MaybeGated,
  { kind: _, ...cut }: LanePlan,
): Prepared {
  const tile = { ...cut, accumulate, ...(gate && { gate }) };
  return {
    kernel: (dtype) => commands.kernel(laneProductName({ ...tile, dtype }), () => laneProduct({ ...tile, dtype })),
    input: x.tensor,
    groups: (partRows) => [Math.ceil(partRows / (LANES * cut.outputs)), Math.ceil(rows / cut.inputs), 1],
  };
}

function tileKernel(commands: Commands, { x, rows, accumulate = false }: Product, side: 64 | 128): Prepared {
  return {
    kernel: (dtype) => {
      const tile = { dtype, accumulate, side };
      return commands.kernel(tiledProductName(tile), () => tiledProduct(tile));
    },
    input: x.tensor,
    groups: (partRows) => spread(Math.ceil(rows / side) * Math.ceil(partRows / side)),
  };
}
