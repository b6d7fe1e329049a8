/**
 * The parameters that distinguish variants of the tile for GPUs, the numbers that follow from them, and which variant
 * suits an adapter.
 */

import type { HeadShape } from "../kv_pages.ts";

/** What distinguishes variants. */
export interface HardwareTile extends HeadShape {
  /** Query rows (token, head) of a workgroup, and of a thread. */
  readonly tileRows: 16 | 32 | 64;
  readonly ownRows: 4 | 8;
  /** Vectors of four dimensions in a slice of queries and keys. */
  readonly sliceVecs: 2 | 4 | 8;
  /** Keys in a slice of values. */
  readonly valueKeys: 4 | 8 | 16;
}

/** Threads that share rows: each takes four of a block's keys, and a part of the output's dimensions. */
export const LANES = 16;
/** KV rows of a block, which lies within one page. */
export const BLOCK_ROWS = 4 * LANES;

type TileSizes = Pick<HardwareTile, "tileRows" | "ownRows" | "sliceVecs" | "valueKeys">;

/** For the 16 KB that every adapter has. */
const SMALL: TileSizes = { tileRows: 16, ownRows: 4, sliceVecs: 4, valueKeys: 4 };

/**
 * Best first; the later ones take less workgroup memory. On an H100, 2,048 rows of 32/8 heads of 128 behind 30,720 positions: 26.2
 * TFLOP/s by the first, 23.5 by slices half as deep, 19 by 128 rows with 8 lanes, 17 by 4 rows of a thread, 11 by 64 rows with 8 lanes.
 */
const TILES: readonly TileSizes[] = [
  { tileRows: 64, ownRows: 8, sliceVecs: 8, valueKeys: 16 },
  { tileRows: 64, ownRows: 8, sliceVecs: 4, valueKeys: 4 },
  { tileRows: 64, ownRows: 8, sliceVecs: 2, valueKeys: 4 },
  SMALL,
];

/** Longer heads have tiles of half as many rows: their outputs would not stay in registers. */
const LONG_HEAD = 128;
const LONG_HEAD_TILES: readonly TileSizes[] = [
  { tileRows: 32, ownRows: 4, sliceVecs: 8, valueKeys: 16 },
  { tileRows: 32, ownRows: 4, sliceVecs: 4, valueKeys: 8 },
  SMALL,
];

/** The best tile that so much workgroup memory takes, with a token's heads of a group in it; undefined: none. */
export function hardwareTileFor(maxWorkgroupBytes: number, shape: HeadShape): HardwareTile | undefined {
  const sizes = shape.headDim > LONG_HEAD ? LONG_HEAD_TILES : TILES;
  return sizes.map((tile): HardwareTile => ({ ...shape, ...tile }))
    .find((tile) => hardwareTileBytes(tile) <= maxWorkgroupBytes && hardwareTileTokens(tile) > 0);
}

/** Tokens of one tile: as many as have all their heads of a group in it. */
export function hardwareTileTokens({ heads, kvHeads, tileRows }: HardwareTile): number {
  return Math.floor((tileRows * kvHeads) / heads);
}

/** Bytes of workgroup memory that a variant takes. */
export function hardwareTileBytes(tile: HardwareTile): number {
  const { ownRows, tileRows, sliceVecs, valueKeys, rowGroups, ownVecs } = planOf(tile);
  const queries = rowGroups * (ownRows * sliceVecs + 1);
  const keys = LANES * (4 * sliceVecs + 1);
  const weights = LANES * (rowGroups * (ownRows + 1) + 1);
  const values = valueKeys * ownVecs * LANES;
  const maxima = tileRows * LANES / 4;
  return 16 * (queries + keys + weights + values + maxima);
}

/** A variant and the numbers that follow from it. */
export interface Plan extends HardwareTile {
  /** Query heads of a KV head. */
  readonly group: number;
  readonly rowGroups: number;
  readonly threads: number;
  /** Query rows that are used; the rest repeats the last one. */
  readonly usedRows: number;
  /** Vectors of four dimensions in a row, and slices of them. */
  readonly vecs: number;
  readonly slices: number;
  /** Output vectors of a thread in a row. */
  readonly ownVecs: number;
}

/** Plans a variant. */
export function planOf(tile: HardwareTile): Plan {
  const { heads, kvHeads, headDim, tileRows, ownRows, sliceVecs } = tile;
  const group = heads / kvHeads;
  const rowGroups = tileRows / ownRows;
  const vecs = headDim / 4;
  return {
    ...tile,
    group,
    rowGroups,
    threads: rowGroups * LANES,
    usedRows: hardwareTileTokens(tile) * group,
    vecs,
    slices: Math.ceil(vecs / sliceVecs),
    ownVecs: Math.ceil(vecs / LANES),
  };
}

/** WGSL: the state (row of the output, head) of a row of the tile. */
export function stateOf(row: string, { heads, group, usedRows }: Plan): string {
  const used = `min(${row}, ${usedRows - 1}u)`;
  return `((params.firstRow + min(firstToken + ${used} / ${group}u, lastToken)) * ${heads}u + kvHead * ${group}u + ${used} % ${group}u)`;
}
