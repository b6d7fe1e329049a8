/**
 * Decode rows on the matrix tile: blocks of rows of one sequence, each by the lowest tile that takes it, split by split.
 * All heights give a row the same bits, so rows that are computed together have those of rows computed alone.
 */

import {
  type AttentionState,
  type HeadShape,
  PAGED_KV_BINDINGS,
  type PagedKv,
  PART_BINDINGS,
  type ScoreOutput,
  stateBindings,
  type StateForm,
} from "./kv_pages.ts";
import type { Commands, Kernel } from "../pipeline.ts";
import { BLOCK_WORDS, LIST_WORDS, listsOf, type RowRange, type ScratchPass } from "./row_blocks.ts";
import { jointSplitsOf, type SplitCut } from "./split/split_cut.ts";
import { matrixTileWgsl } from "./tile/matrix_tile.ts";
import { type MatrixTile, matrixTileName, matrixTileTokens } from "./tile/matrix_tile_plan.ts";
import type { Tensor } from "../tensor.ts";
import { reads, writes } from "../wgsl.ts";

/** Tiles for decode rows, lowest first. */
export type RowTiles = readonly [MatrixTile, ...MatrixTile[]];

/** What a call reads and writes; see `DecodeAttention`. */
export interface RowTileCall extends PagedKv {
  readonly shape: HeadShape;
  /** f16, see `half_queries.ts`. */
  readonly q: Tensor;
  readonly rowTable: Tensor;
  /** The states of the splits. */
  readonly scratch: AttentionState;
  readonly out: AttentionState;
  readonly outForm: StateForm;
  /** First row of the call, where its scores begin. */
  readonly firstRow: number;
  readonly scores?: ScoreOutput;
}

/** Rows of a sequence that the highest tile takes. */
export function rowsOfTiles(tiles: RowTiles): number {
  return Math.max(...tiles.map(matrixTileTokens));
}

/** Dispatches the blocks of one pass, each for as many splits as its rows may need together. */
export function dispatchRowTiles(
  commands: Commands,
  { shape, q, kv, pageTable, maxPages, rowTable, scratch, out, outForm, scores, ...call }: RowTileCall,
  { tiles, pass, cut, longest }: {
    readonly tiles: RowTiles;
    readonly pass: ScratchPass;
    readonly cut: SplitCut;
    readonly longest: number;
  },
): void {
  const { first: firstRow, rows, blocks } = pass;
  for (const { tile, list, together } of dispatchesOf(tiles, blocks, firstRow)) {
    const splits = jointSplitsOf(cut, longest, together);
    commands.dispatch(kernelOf(commands, { ...tile, outForm, keepsScores: scores !== undefined }), {
      tensors: [
        ...[q, kv.k, kv.v, pageTable, rowTable, scratch.o, scratch.lse],
        ...(outForm === "parts" ? [] : [out.o, out.lse]),
        ...(scores === undefined ? [] : [scores.scores]),
      ],
      params: {
        ...{ firstRow, rows, queryRows: q.shape[1] ?? 0, maxPages, listed: list === undefined ? 0 : 1 },
        callRow: firstRow - call.firstRow,
        scoreStride: scores?.stride ?? 0,
      },
      ...(list && { list }),
      groups: [list === undefined ? rows : list.length / BLOCK_WORDS, shape.kvHeads, splits],
    });
  }
}

interface TileDispatch {
  readonly tile: MatrixTile;
  /** The blocks that it serves; undefined: all rows of the pass, each alone. */
  readonly list: readonly number[] | undefined;
  /** Rows of a block at most. */
  readonly together: number;
}

function dispatchesOf(tiles: RowTiles, blocks: readonly RowRange[], firstRow: number): TileDispatch[] {
  const [lowest] = tiles;
  if (blocks.every(({ rows }) => rows === 1)) return [{ tile: lowest, list: undefined, together: 1 }];
  const heightFor = ({ rows }: RowRange) => tiles.find((tile) => matrixTileTokens(tile) >= rows);
  return tiles.flatMap((tile) => {
    const fitting = blocks.filter((block) => heightFor(block) === tile);
    const together = Math.max(...fitting.map(({ rows }) => rows));
    return listsOf(fitting, firstRow).map((list) => ({ tile, list, together }));
  });
}

const PARAMS = ["firstRow", "rows", "queryRows", "maxPages", "listed", "callRow", "scoreStride"];

function kernelOf(commands: Commands, tile: MatrixTile): Kernel {
  return commands.kernel(matrixTileName(tile), () => ({
    needs: ["f16", "matrix"],
    bindings: [
      reads("q", "array<vec4<u32>>"),
      ...PAGED_KV_BINDINGS,
      ...PART_BINDINGS,
      ...stateBindings(tile.outForm),
      ...(tile.keepsScores ? [writes("keptScores", "array<vec4<f32>>")] : []),
    ],
    params: PARAMS.map((name) => [name, "u32"]),
    listWords: LIST_WORDS,
    source: matrixTileWgsl(tile),
  }));
}
