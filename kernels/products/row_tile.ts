/**
 * How the product of few rows on matrix units is cut: what orders the additions of a row, which follows from the adapter, and the
 * tiles, which change no bits. Knows sizes; the kernel is in `row_product.ts`.
 */

import type { GpuInfo } from "../gpu.ts";
import { HALVES_AN_ELEMENT, type MatrixUnits, narrowUnitsOf } from "../matrix_wgsl.ts";
import type { WeightDType } from "../weights/format.ts";
import { isPaired, type Pairing } from "./paired_results.ts";

/** What orders the additions of a row; it follows from the adapter alone. */
export interface RowProductCut extends MatrixUnits {
  /** Subgroups that share out k, and k of each in a turn. */
  readonly shares: number;
  readonly depth: number;
  /** Tiles that the adapter has room for, those of the fewest rows first. */
  readonly tiles: readonly RowTile[];
}

/** How a workgroup cuts the rest of the work; changes no bits. */
export interface RowTile {
  /** Rows of x. */
  readonly rows: number;
  /** Fragments of outputs. */
  readonly outputs: number;
  /** Subgroups that share out the rows of x. */
  readonly beside: number;
  /** Turns of k in a slice. */
  readonly turns: number;
  /** Slices of the weight, and of x, that are asked for ahead of the one in work: they stay in registers. */
  readonly ahead: number;
  readonly inputsAhead: number;
  /** Workgroups that a weight must have rows for. */
  readonly workgroups: number;
}

/** A variant of the kernel. */
export interface RowProduct extends Omit<RowProductCut, "tiles">, Pairing {
  readonly tile: RowTile;
  /** Of the weight; not f32. */
  readonly dtype: WeightDType;
  /** Whether the weight's columns are no multiple of the slices that are asked for together: the last one is filled up with zeros. */
  readonly ragged: boolean;
  /** Not where results are paired. */
  readonly accumulate: boolean;
}

/** By instructions of 16 outputs. */
const LARGE_CUT = { shares: 4, depth: 32 } as const;
/**
 * By rows, then those first that need many workgroups to keep all processors busy, or to have enough on its way. Chosen on an H200.
 */
const LARGE_TILES: readonly RowTile[] = [
  { rows: 1, outputs: 1, beside: 1, turns: 2, ahead: 2, inputsAhead: 2, workgroups: 512 },
  { rows: 1, outputs: 1, beside: 1, turns: 2, ahead: 4, inputsAhead: 4, workgroups: 0 },
  { rows: 8, outputs: 1, beside: 1, turns: 1, ahead: 4, inputsAhead: 4, workgroups: 0 },
  { rows: 16, outputs: 1, beside: 1, turns: 1, ahead: 4, inputsAhead: 4, workgroups: 0 },
  { rows: 32, outputs: 4, beside: 2, turns: 1, ahead: 4, inputsAhead: 4, workgroups: 96 },
  { rows: 32, outputs: 2, beside: 2, turns: 1, ahead: 4, inputsAhead: 4, workgroups: 0 },
  { rows: 64, outputs: 4, beside: 2, turns: 1, ahead: 2, inputsAhead: 1, workgroups: 96 },
  { rows: 64, outputs: 2, beside: 2, turns: 1, ahead: 4, inputsAhead: 4, workgroups: 0 },
];
/** For instructions of 8 × 8, which software computes: its compiler takes minutes for twice as much in one kernel. */
const SMALL_CUT = { shares: 2, depth: 8 } as const;
const SMALL_TILES: readonly RowTile[] = [
  { rows: 1, outputs: 1, beside: 1, turns: 1, ahead: 2, inputsAhead: 2, workgroups: 0 },
  { rows: 8, outputs: 2, beside: 1, turns: 1, ahead: 2, inputsAhead: 2, workgroups: 0 },
  { rows: 16, outputs: 1, beside: 2, turns: 2, ahead: 2, inputsAhead: 1, workgroups: 0 },
];

/** Padding of a staged row, in elements: rows start in different banks. */
const PADDING = 1;

/** The cut for an adapter; undefined: it has no matrix units that add in f32, or too little workgroup memory. */
export function rowProductCut(
  info: Pick<GpuInfo, "matrix" | "subgroupSize" | "maxWorkgroupBytes" | "maxInvocations">,
): RowProductCut | undefined {
  const units = narrowUnitsOf(info);
  if (units === undefined) return undefined;
  const [order, all] = units.shape.m < 16 ? [SMALL_CUT, SMALL_TILES] : [LARGE_CUT, LARGE_TILES];
  const cut = { ...units, ...order };
  if (order.depth % units.shape.k !== 0) return undefined;
  const tiles = all.filter((tile) => {
    const { threads, stagedWeights, stagedInputs } = rowPlanOf({ ...cut, tile });
    return threads <= info.maxInvocations && (stagedWeights + stagedInputs) * 16 <= info.maxWorkgroupBytes;
  });
  return tiles.length === 0 ? undefined : { ...cut, tiles };
}

/** The tiles of the fewest rows that take so many at once, else of the most; of those the one that suits the weight. */
export function rowTileFor(
  { shape, tiles }: RowProductCut,
  { rows, weightRows }: { readonly rows: number; readonly weightRows: number },
): RowTile {
  const least = tiles.map((tile) => tile.rows).find((taken) => taken >= rows) ?? tiles.at(-1)?.rows;
  const fitting = tiles.filter((tile) => tile.rows === least);
  const tile = fitting.find((tile) => weightRows >= tile.workgroups * outputsOf(shape, tile)) ?? fitting.at(-1);
  if (tile === undefined) throw new RangeError("Cannot cut a row product: no tile fits the adapter");
  return tile;
}

/** Rows of the weight that a workgroup takes. */
function outputsOf({ m }: MatrixUnits["shape"], { outputs }: RowTile): number {
  return outputs * m;
}

/** Whether a weight's columns end within the slices that a tile asks for together. */
export function isRagged(cut: TiledCut, cols: number): boolean {
  return cols % (cut.tile.ahead * cut.tile.turns * cut.shares * cut.depth) !== 0;
}

/** What sizes follow from. */
export type TiledCut = Pick<RowProductCut, "shape" | "subgroupSize" | "shares" | "depth"> & Pairing & {
  readonly tile: RowTile;
};

/** Numbers that follow from a variant; elements are of 16 bytes. */
export interface RowPlan {
  readonly threads: number;
  /** Rows of the weight of a workgroup, and results: half as many where they are paired. */
  readonly outputs: number;
  readonly results: number;
  /** Fragments of columns of a subgroup. */
  readonly columns: number;
  /** Elements of a slice's row. */
  readonly elements: number;
  /** The distance of two staged rows of the weight, and of two columns of x. */
  readonly stride: number;
  readonly inputStride: number;
  /** Rows of x that are staged. */
  readonly stagedRows: number;
  /** Elements that a thread brings of a slice of the weight, and of x; the last ones need not exist. */
  readonly weights: number;
  readonly inputs: number;
  /** Elements of workgroup memory: for the weight, where sums of column fragments meet later, and for x. */
  readonly stagedWeights: number;
  readonly stagedInputs: number;
}

/** The plan of a variant. */
export function rowPlanOf({ shape, subgroupSize, shares, depth, tile, ...pairing }: TiledCut): RowPlan {
  const threads = subgroupSize * shares * tile.beside;
  const outputs = outputsOf(shape, tile);
  const columns = Math.ceil(tile.rows / shape.n / tile.beside);
  const elements = tile.turns * shares * depth / HALVES_AN_ELEMENT;
  const stride = elements + PADDING;
  const single = tile.rows === 1;
  const stagedRows = single ? 1 : columns * shape.n * tile.beside;
  // A row alone needs no columns beside it: these are read from what follows it.
  const inputStride = single ? shape.k / HALVES_AN_ELEMENT : stride;
  return {
    ...{ threads, outputs, columns, elements, stride, inputStride, stagedRows },
    results: isPaired(pairing) ? outputs / 2 : outputs,
    weights: Math.ceil(outputs * elements / threads),
    inputs: Math.ceil(stagedRows * elements / threads),
    stagedWeights: Math.max(outputs * stride, tile.beside * shares * outputs * shape.n / 4),
    stagedInputs: single ? elements + shape.n * inputStride : stagedRows * stride,
  };
}
