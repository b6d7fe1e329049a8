/** What tells one variant of the matrix tile from another, and the numbers that follow from it. */

import type { HeadShape } from "../kv_pages.ts";
import { HALVES_AN_ELEMENT, type MatrixUnits } from "../../matrix_wgsl.ts";

/** A variant of the tile. */
export interface MatrixTile extends HeadShape, MatrixUnits {
  /** Query rows (token, head) of a workgroup, and of a subgroup. */
  readonly tileRows: number;
  readonly subgroupRows: number;
  /** Subgroups that share rows: each takes a part of a block's keys, and of the output's dimensions. */
  readonly split: number;
  /** KV rows of a block; divides a page. */
  readonly blockRows: number;
}

/** Padding of rows in workgroup memory, in elements of 16 bytes: rows start in different banks. */
const PADDING = 1;

/** Tokens of one tile: as many as have all their heads of a group in it. */
export function matrixTileTokens({ heads, kvHeads, tileRows }: MatrixTile): number {
  return Math.floor((tileRows * kvHeads) / heads);
}

/** Bytes of workgroup memory that a variant takes. */
export function matrixTileBytes(tile: MatrixTile): number {
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
  /** Fragments of a subgroup, and instructions along a head and along a block. */
  readonly fragments: {
    readonly rows: number;
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
    fragments: {
      rows: subgroupRows / shape.m,
      keys: blockRows / split / shape.n,
      outputs: headDim / split / shape.n,
      headDepth: headDim / shape.k,
      blockDepth: blockRows / shape.k,
    },
  };
}
