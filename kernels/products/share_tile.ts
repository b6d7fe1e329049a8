/**
 * How the product of a few dozen rows is cut into shares of k and tiles. Knows sizes; the kernels are in `share_product.ts` and
 * `share_sums.ts`.
 */

import { HALVES_AN_ELEMENT } from "../matrix_wgsl.ts";
import type { WeightDType } from "../weights/format.ts";
import { HALVES, type RowProductCut } from "./row_tile.ts";

/** How a workgroup cuts its share; changes no bits. */
export interface ShareTile {
  /** Weight rows, and columns (two for each row of x), of a workgroup and of a subgroup: multiples of the instruction's m and n. */
  readonly outputs: number;
  readonly columns: number;
  readonly subgroupOutputs: number;
  readonly subgroupColumns: number;
  /** Turns of the share that are staged together. */
  readonly turns: number;
}

/** A variant of the kernel. */
export interface ShareProduct extends Pick<RowProductCut, "shape" | "subgroupSize" | "shares" | "depth"> {
  readonly tile: ShareTile;
  /** Of the weight; not f32. */
  readonly dtype: WeightDType;
  /** Whether the weight's columns are no multiple of what a workgroup of each share stages: the rest is filled up with zeros. */
  readonly ragged: boolean;
}

/** Numbers that follow from a variant; elements are of 16 bytes. */
export interface SharePlan {
  readonly threads: number;
  /** Subgroups side by side along columns. */
  readonly across: number;
  /** Elements of a turn, of a staged row, and the distance of two rows. */
  readonly turn: number;
  readonly elements: number;
  readonly stride: number;
  /** Elements that a thread brings of the weight, and of x. */
  readonly weights: number;
  readonly inputs: number;
  /** Fragments of a subgroup, and instructions along a staged row. */
  readonly fragments: { readonly outputs: number; readonly columns: number; readonly depth: number };
}

/** Padding of a staged row, in elements: rows start in different banks. */
const PADDING = 1;

/** The plan of a variant. */
export function sharePlanOf(
  { shape, subgroupSize, depth, tile }: Pick<ShareProduct, "shape" | "subgroupSize" | "depth" | "tile">,
): SharePlan {
  const across = tile.columns / tile.subgroupColumns;
  const threads = tile.outputs / tile.subgroupOutputs * across * subgroupSize;
  const turn = depth / HALVES_AN_ELEMENT;
  const elements = turn * tile.turns;
  return {
    threads,
    across,
    turn,
    elements,
    stride: elements + PADDING,
    weights: tile.outputs * elements / threads,
    inputs: tile.columns * elements / threads,
    fragments: {
      outputs: tile.subgroupOutputs / shape.m,
      columns: tile.subgroupColumns / shape.n,
      depth: depth * tile.turns / shape.k,
    },
  };
}

/**
 * By instructions of 16 outputs. On an H200, 64 rows by the four products of a layer of 8B take 0.46 ms with this one, 0.65 by row
 * products; twice the turns 0.59, half or twice the outputs 0.53 to 0.61, 128 columns 0.47. With 32 rows nothing is gained.
 */
const LARGE_TILES: readonly ShareTile[] = [
  { outputs: 128, columns: 64, subgroupOutputs: 64, subgroupColumns: 32, turns: 1 },
];
/** For instructions of 8 × 8. */
const SMALL_TILES: readonly ShareTile[] = [
  { outputs: 16, columns: 16, subgroupOutputs: 16, subgroupColumns: 8, turns: 2 },
];

/** Rows up to this many are computed faster where the subgroups of one workgroup share out k. */
const FEW_ROWS = { large: 32, small: 4 } as const;

/** Sums between the two kernels take no more than this: of a head with 128,256 results, only few rows do. */
const MAX_SUMS_BYTES = 2 ** 26;

/** The tile for so many rows and weight rows; undefined: they are computed without splitting k over workgroups. */
export function shareTileFor(
  cut: Pick<RowProductCut, "shape" | "subgroupSize" | "shares" | "depth">,
  { rows, weightRows, maxWorkgroupBytes }: {
    readonly rows: number;
    readonly weightRows: number;
    readonly maxWorkgroupBytes: number;
  },
): ShareTile | undefined {
  const [all, few] = cut.shape.m < 16 ? [SMALL_TILES, FEW_ROWS.small] : [LARGE_TILES, FEW_ROWS.large];
  const tiles = all.filter((tile) =>
    (tile.outputs + tile.columns) * sharePlanOf({ ...cut, tile }).stride * 16 <= maxWorkgroupBytes
  );
  const tile = tiles.find(({ columns }) => columns >= HALVES * rows) ?? tiles.at(-1);
  if (rows <= few || tile === undefined) return undefined;
  const { floats } = shareSumsOf({ ...cut, tile }, { rows, weightRows });
  return floats * 4 <= MAX_SUMS_BYTES ? tile : undefined;
}

/** Sums of all shares: how many blocks of columns and of weight rows there are, and floats in all. */
export function shareSumsOf(
  { tile, shares }: Pick<ShareProduct, "tile" | "shares">,
  { rows, weightRows }: { readonly rows: number; readonly weightRows: number },
): { readonly columnBlocks: number; readonly outputBlocks: number; readonly floats: number } {
  const columnBlocks = Math.ceil(HALVES * rows / tile.columns);
  const outputBlocks = Math.ceil(weightRows / tile.outputs);
  return { columnBlocks, outputBlocks, floats: shares * columnBlocks * tile.columns * outputBlocks * tile.outputs };
}
