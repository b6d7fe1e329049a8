/**
 * The parameters that distinguish variants of the matrix tile, the numbers that follow from them, and which variant
 * suits an adapter.
 */

import type { HeadShape, StateForm } from "../kv_pages.ts";
import type { GpuInfo } from "../../gpu.ts";
import { HALVES_AN_ELEMENT, type MatrixUnits, matrixUnitsOf } from "../../matrix_wgsl.ts";
import { describeShape } from "../../provider.ts";
import { cutName, MATRIX_CUT, type SplitCut } from "../split/split_cut.ts";

/** A variant of the tile. */
export interface MatrixTile extends HeadShape, MatrixUnits {
  /** Query rows (token, head) of a workgroup, and of a subgroup. */
  readonly tileRows: number;
  readonly subgroupRows: number;
  /** Subgroups that share rows: each takes a part of a block's scores, and of the output's dimensions. */
  readonly split: number;
  /** KV rows of a block; divides a page. */
  readonly blockRows: number;
  /** What a workgroup walks over: all that its rows of a chunk see, or one split of what decode rows see. */
  readonly cut: "chunk" | SplitCut;
  /** Of the outputs. */
  readonly outForm: StateForm;
  /** Whether scores are written too; of decode rows. */
  readonly keepsScores: boolean;
}

/** Padding of rows in workgroup memory, in elements of 16 bytes: rows start in different banks. */
const PADDING = 1;

/** Tokens of one tile: as many as have all their heads of a group in it. */
export function matrixTileTokens({ heads, kvHeads, tileRows }: MatrixTile): number {
  return Math.floor((tileRows * kvHeads) / heads);
}

/** Bytes of workgroup memory that a variant takes. */
function matrixTileBytes(tile: MatrixTile): number {
  const { keys, weights, scores, threads } = planOf(tile);
  const { blockRows, tileRows } = tile;
  return (2 * blockRows * keys + tileRows * (weights + scores)) * 16 + (threads + tileRows + 1) * 4;
}

/** A variant and the numbers that follow from it. Strides are in elements of 16 bytes. */
export interface Plan extends MatrixTile {
  /** Query heads of a KV head. */
  readonly group: number;
  readonly tokens: number;
  readonly threads: number;
  /** Threads that share a row's softmax, and the keys of each. */
  readonly threadsARow: number;
  readonly ownKeys: number;
  /** Elements of a K or V row, and those with padding. */
  readonly elements: number;
  readonly keys: number;
  /** Strides of a row of scores and of weights. */
  readonly scores: number;
  readonly weights: number;
  /** Elements of a block's K, or V, that a thread brings. */
  readonly loads: number;
  /** How the subgroups that share rows share out a block's scores: by keys as far as these go, then by rows. */
  readonly keyParts: number;
  readonly rowParts: number;
  /** Fragments of a subgroup, and instructions along a head and along a block. */
  readonly fragments: {
    readonly rows: number;
    /** Of those, the ones whose scores it computes, and their keys. */
    readonly scoredRows: number;
    readonly keys: number;
    readonly outputs: number;
    readonly headDepth: number;
    readonly blockDepth: number;
  };
}

/** Plans a variant. */
export function planOf(tile: MatrixTile): Plan {
  const { heads, kvHeads, headDim, shape, subgroupSize, tileRows, subgroupRows, split, blockRows } = tile;
  const threads = (tileRows / subgroupRows) * split * subgroupSize;
  const threadsARow = threads / tileRows;
  const keyParts = Math.min(split, blockRows / shape.n);
  const rowParts = split / keyParts;
  return {
    ...tile,
    group: heads / kvHeads,
    tokens: matrixTileTokens(tile),
    threads,
    threadsARow,
    ownKeys: blockRows / threadsARow,
    elements: headDim / HALVES_AN_ELEMENT,
    keys: headDim / HALVES_AN_ELEMENT + PADDING,
    scores: blockRows / 4 + PADDING,
    weights: blockRows / HALVES_AN_ELEMENT + PADDING,
    loads: blockRows * headDim / HALVES_AN_ELEMENT / threads,
    keyParts,
    rowParts,
    fragments: {
      rows: subgroupRows / shape.m,
      scoredRows: subgroupRows / rowParts / shape.m,
      keys: blockRows / keyParts / shape.n,
      outputs: headDim / split / shape.n,
      headDepth: headDim / shape.k,
      blockDepth: blockRows / shape.k,
    },
  };
}

type TileSizes = Pick<MatrixTile, "tileRows" | "subgroupRows" | "split" | "blockRows">;

/** Best first. On an H100, 1,024 rows behind 31,744, 32/8 heads of 128: 179 TFLOP/s by the first, 125 by the second. */
const LARGE_INSTRUCTION_TILES: readonly TileSizes[] = [
  { tileRows: 128, subgroupRows: 32, split: 2, blockRows: 32 },
  { tileRows: 64, subgroupRows: 16, split: 1, blockRows: 32 },
  { tileRows: 64, subgroupRows: 32, split: 2, blockRows: 16 },
];
const SMALL_INSTRUCTION_TILES: readonly TileSizes[] = [{ tileRows: 16, subgroupRows: 8, split: 2, blockRows: 16 }];

/**
 * Heights for decode rows, ascending: all share a block and a cut, on which a row's bits depend. The first that fits is taken. On an
 * H200 of rows of 98,304 positions, 32/8 heads of 128, by four subgroups that share rows and by the tiles after them: 8 rows
 * 216 and 285 µs, 16 rows 257 and 265, 32 rows 350 and 381.
 */
const LARGE_INSTRUCTION_HEIGHTS: readonly TileSizes[] = [
  { tileRows: 16, subgroupRows: 16, split: 2, blockRows: 32 },
  { tileRows: 16, subgroupRows: 16, split: 1, blockRows: 32 },
  { tileRows: 32, subgroupRows: 32, split: 4, blockRows: 32 },
  { tileRows: 32, subgroupRows: 16, split: 1, blockRows: 32 },
  { tileRows: 64, subgroupRows: 32, split: 4, blockRows: 32 },
  { tileRows: 64, subgroupRows: 16, split: 1, blockRows: 32 },
  { tileRows: 128, subgroupRows: 32, split: 4, blockRows: 32 },
  { tileRows: 128, subgroupRows: 32, split: 2, blockRows: 32 },
];
const SMALL_INSTRUCTION_HEIGHTS: readonly TileSizes[] = [
  { tileRows: 8, subgroupRows: 8, split: 2, blockRows: 16 },
  { tileRows: 16, subgroupRows: 16, split: 4, blockRows: 16 },
];

/** The tile for a chunk of a prompt: the best that the adapter takes; undefined: none fits the heads. */
export function matrixTileFor(info: GpuInfo, shape: HeadShape): MatrixTile | undefined {
  const units = matrixUnitsOf(info);
  if (units === undefined) return undefined;
  const tiles = units.shape.m === 16 ? LARGE_INSTRUCTION_TILES : SMALL_INSTRUCTION_TILES;
  return tiles.map((sizes): MatrixTile => ({
    ...shape,
    ...sizes,
    ...units,
    cut: "chunk",
    outForm: "f32",
    keepsScores: false,
  }))
    .find((tile) => fitsTile(info, tile));
}

/** The tiles for decode rows, lowest first; the lowest takes a row of any group of heads. Undefined: none fits the heads. */
export function rowTilesFor(info: GpuInfo, shape: HeadShape): readonly [MatrixTile, ...MatrixTile[]] | undefined {
  const units = matrixUnitsOf(info);
  if (units === undefined) return undefined;
  const heights = units.shape.m === 16 ? LARGE_INSTRUCTION_HEIGHTS : SMALL_INSTRUCTION_HEIGHTS;
  const [lowest, ...higher] = heights.map((sizes): MatrixTile => ({
    ...shape,
    ...sizes,
    ...units,
    cut: MATRIX_CUT,
    outForm: "f32",
    keepsScores: false,
  }))
    .filter((tile) => fitsTile(info, tile));
  return lowest && [lowest, ...higher];
}

/** Heads longer than these would keep more outputs in registers than there are. */
const MAX_HEAD_DIM = 128;

function fitsTile({ maxWorkgroupBytes, maxInvocations }: GpuInfo, tile: MatrixTile): boolean {
  const { headDim, shape, tileRows, subgroupRows, split, blockRows, group, threads, keyParts, rowParts } = planOf(tile);
  return group <= tileRows && headDim <= MAX_HEAD_DIM &&
    subgroupRows % (rowParts * shape.m) === 0 && headDim % shape.k === 0 &&
    headDim % (split * shape.n) === 0 && blockRows % (keyParts * shape.n) === 0 &&
    // Threads share out a block's elements, and the keys of a row by eights.
    (blockRows * headDim / 8) % threads === 0 && (blockRows * tileRows) % (8 * threads) === 0 &&
    threads <= maxInvocations && matrixTileBytes(tile) <= maxWorkgroupBytes;
}

/** The kernel's name, different for every variant. */
export function matrixTileName({ shape, cut, ...tile }: MatrixTile): string {
  const walk = cut === "chunk" ? cut : cutName(cut);
  return `attention_tile matrix ${describeShape(shape)} ${Object.values(tile)} ${walk}`;
}
