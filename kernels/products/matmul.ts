/**
 * y (+)= x · Wᵀ for the many rows of a prefill chunk. Knows which kernel suits the adapter; knows no layers. A row's bits
 * never depend on the other rows: all variants add in ascending k, and nothing is split over k.
 */

import type { GpuInfo } from "../gpu.ts";
import { laneProduct, laneProductName, LANES } from "./lane_product.ts";
import type { Product } from "./matvec.ts";
import type { Commands } from "../pipeline.ts";
import { expectTensor } from "../tensor.ts";
import { tiledProduct, tiledProductName } from "./tiled_product.ts";
import { spread } from "../wgsl.ts";

/** The ways to cut the work: 8 × 256 without shared memory (software), or square tiles (GPUs). */
export type MatmulPlan = { readonly kind: "lanes" } | { readonly kind: "tiles"; readonly side: 64 | 128 };

const LANE_TILE = { inputs: 8, outputs: 8 } as const;
/** Fewer large tiles than this leave processors idle: small ones it is. */
const ENOUGH_TILES = 256;

/** The plan for a product on an adapter. */
export function planMatmul(info: Pick<GpuInfo, "software">, rows: number, weightRows: number): MatmulPlan {
  if (info.software) return { kind: "lanes" };
  const largeTiles = Math.ceil(rows / 128) * Math.ceil(weightRows / 128);
  return { kind: "tiles", side: rows > 64 && largeTiles >= ENOUGH_TILES ? 128 : 64 };
}

/**
 * Computes y = x · Wᵀ, or y += x · Wᵀ, in f32, for any number of rows; meant for many.
 * @throws {GpuError} `invalid_shape` when a tensor is too small or no f32
 */
export function matmul(commands: Commands, product: Product, plan?: MatmulPlan): void {
  const { weight, x, y, rows } = product;
  expectTensor("matmul", x, "f32", [rows, weight.cols]);
  expectTensor("matmul", y, "f32", [rows, weight.rows]);
  if (rows === 0) return;
  const chosen = plan ?? planMatmul(commands.gpu.info, rows, weight.rows);
  const { kernel, groups } = chosen.kind === "lanes"
    ? laneKernel(commands, product)
    : tileKernel(commands, product, chosen.side);
  for (const { tensor, firstRow, rows: partRows } of weight.parts) {
    commands.dispatch(kernel, {
      tensors: [tensor, x, y],
      params: { rows, part_rows: partRows, first_row: firstRow, weight_rows: weight.rows, eights: weight.cols / 8 },
      groups: groups(partRows),
    });
  }
}

type Prepared = {
  readonly kernel: ReturnType<Commands["kernel"]>;
  readonly groups: (partRows: number) => [number, number, number];
};

function laneKernel(commands: Commands, { weight, rows, accumulate = false }: Product): Prepared {
  const tile = { dtype: weight.dtype, accumulate, ...LANE_TILE };
  return {
    kernel: commands.kernel(laneProductName(tile), () => laneProduct(tile)),
    groups: (partRows) => [Math.ceil(partRows / (LANES * tile.outputs)), Math.ceil(rows / tile.inputs), 1],
  };
}

function tileKernel(commands: Commands, { weight, rows, accumulate = false }: Product, side: 64 | 128): Prepared {
  const tile = { dtype: weight.dtype, accumulate, side };
  return {
    kernel: commands.kernel(tiledProductName(tile), () => tiledProduct(tile)),
    groups: (partRows) => spread(Math.ceil(rows / side) * Math.ceil(partRows / side)),
  };
}
