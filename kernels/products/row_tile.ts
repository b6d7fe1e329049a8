/**
 * How the product of few rows on matrix units is cut: what orders the additions of a row, which follows from the adapter, and the
 * tiles, which change no bits. Knows sizes; the kernel is in `row_product.ts`.
 */

import type { GpuInfo } from "../gpu.ts";
import { HALVES_AN_ELEMENT, type MatrixUnits, narrowUnitsOf } from "../matrix_wgsl.ts";
import type { WeightDType } from "../weights/format.ts";
import type { Pairing } from "./paired_results.ts";

/** What orders the additions of a row; it follows from the adapter alone. */
export interface RowProductCut extends MatrixUnits {
  /** Subgroups that share out k, and k of each in a turn. */
  readonly shares: number;
  readonly depth: number;
  /** Tiles that the adapter has room for, the narrowest first. */
  readonly tiles: readonly RowTile[];
}

/** How a workgroup cuts the rest of the work; changes no bits. */
export interface RowTile {
  /** Fragments of outputs of a subgroup, and subgroups side by side along them. */
  readonly outputs: number;
  readonly across: number;
  /** Turns of k in a slice. */
  readonly turns: number;
  /** Slices of the weight that are asked for ahead of the one in work: they stay in registers. */
  readonly ahead: number;
  /** Fragments of columns that are staged together, and how often: their sums stay in registers. */
  readonly columns: number;
  readonly rounds: number;
}

/** A variant of the kernel. */
export interface RowProduct extends Omit<RowProductCut, "tiles">, Pairing {
  readonly tile: RowTile;
  /** Of the weight; not f32. */
  readonly dtype: WeightDType;
  /** Whether the weight's columns are no multiple of a slice: the last one is filled up with zeros. */
  readonly ragged: boolean;
  /** Not where results are paired. */
  readonly accumulate: boolean;
}

/** By instructions of 16 outputs. */
const LARGE_CUT = { shares: 4, depth: 32 } as const;
/** By rows, then with more outputs first: these need a weight of many rows to keep all processors busy. Chosen on an H200. */
const LARGE_TILES: readonly RowTile[] = [
  { outputs: 2, across: 1, turns: 4, ahead: 1, columns: 1, rounds: 1 },
  { outputs: 2, across: 1, turns: 2, ahead: 2, columns: 2, rounds: 1 },
  { outputs: 2, across: 1, turns: 2, ahead: 2, columns: 4, rounds: 1 },
  { outputs: 2, across: 2, turns: 1, ahead: 2, columns: 8, rounds: 1 },
  { outputs: 2, across: 1, turns: 1, ahead: 2, columns: 8, rounds: 1 },
  { outputs: 2, across: 2, turns: 1, ahead: 2, columns: 8, rounds: 2 },
  { outputs: 2, across: 1, turns: 1, ahead: 2, columns: 8, rounds: 2 },
];
/** Workgroups that keep a large GPU busy. */
const ENOUGH_WORKGROUPS = 96;
/** For instructions of 8 × 8, which software computes: its compiler takes minutes for twice as much in one kernel. */
const SMALL_CUT = { shares: 2, depth: 8 } as const;
const SMALL_TILES: readonly RowTile[] = [
  { outputs: 1, across: 1, turns: 1, ahead: 2, columns: 1, rounds: 1 },
  { outputs: 1, across: 1, turns: 1, ahead: 2, columns: 2, rounds: 1 },
  { outputs: 1, across: 2, turns: 2, ahead: 1, columns: 2, rounds: 2 },
];

/** Padding of a slice's row, in elements: rows start in different banks. */
const PADDING = 1;
/** Columns of a row of x: its high halves and its low ones. */
export const HALVES = 2;

/** The cut for an adapter; undefined: it has no matrix units that add in f32, or too little workgroup memory. */
export function rowProductCut(
  info: Pick<GpuInfo, "matrix" | "subgroupSize" | "maxWorkgroupBytes" | "maxInvocations">,
): RowProductCut | undefined {
  const units = narrowUnitsOf(info);
  if (units === undefined) return undefined;
  const [order, all] = units.shape.m < 16 ? [SMALL_CUT, SMALL_TILES] : [LARGE_CUT, LARGE_TILES];
  const cut = { ...units, ...order };
  if (order.depth % units.shape.k !== 0) return undefined;
  const tiles = all.filter((tile) =>
    threadsOf({ ...cut, tile }) <= info.maxInvocations && bytesOf({ ...cut, tile }) <= info.maxWorkgroupBytes
  );
  return tiles.length === 0 ? undefined : { ...cut, tiles };
}

/** The narrowest tiles that take so many rows at once, else the widest; of those the one that suits the weight. */
export function rowTileFor(
  { shape, tiles }: RowProductCut,
  { rows, weightRows }: { readonly rows: number; readonly weightRows: number },
): RowTile {
  const takes = Math.max(...tiles.map((tile) => rowsOf(shape, tile)));
  const least = tiles.map((tile) => rowsOf(shape, tile)).find((taken) => taken >= rows) ?? takes;
  const narrowest = tiles.filter((tile) => rowsOf(shape, tile) === least);
  const tile = narrowest.find((tile) => weightRows >= ENOUGH_WORKGROUPS * outputsOf(shape, tile)) ?? narrowest.at(-1);
  if (tile === undefined) throw new RangeError("Cannot cut a row product: no tile fits the adapter");
  return tile;
}

/** Rows of x that a tile takes. */
export function rowsOf({ n }: MatrixUnits["shape"], { columns, rounds }: RowTile): number {
  return columns * rounds * n / HALVES;
}

/** Rows of the weight that a workgroup takes. */
export function outputsOf({ m }: MatrixUnits["shape"], { outputs, across }: RowTile): number {
  return outputs * across * m;
}

/** k of a slice. */
export function sliceDepthOf(
  { shares, depth }: Pick<RowProductCut, "shares" | "depth">,
  { turns }: Pick<RowTile, "turns">,
): number {
  return turns * shares * depth;
}

/** What sizes follow from. */
export type SizedCut = Pick<RowProductCut, "shape" | "subgroupSize" | "shares" | "depth"> & {
  readonly tile: RowTile;
};

/** Of a workgroup. */
export function threadsOf({ subgroupSize, shares, tile }: SizedCut): number {
  return subgroupSize * shares * tile.across;
}

/** Elements of a slice's row, and the distance of two rows of it. */
export function sliceOf(cut: SizedCut): { readonly elements: number; readonly stride: number } {
  const elements = sliceDepthOf(cut, cut.tile) / HALVES_AN_ELEMENT;
  return { elements, stride: elements + PADDING };
}

/** Sums that meet at a time: one column fragment of all outputs, of each share of k. */
export function meetingOf({ shape, shares, tile }: SizedCut): number {
  return shares * outputsOf(shape, tile) * shape.n;
}

/** Bytes of workgroup memory: the weight's slice, the columns', and the sums that meet. */
function bytesOf(cut: SizedCut): number {
  const { shape, tile } = cut;
  return (outputsOf(shape, tile) + tile.columns * shape.n) * sliceOf(cut).stride * 16 + meetingOf(cut) * 4;
}
