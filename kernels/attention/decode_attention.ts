/**
 * Attention of decode rows to the pages of their sequences: all visible rows (dense), or those of a selection (gathered).
 * The KV rows are cut into splits by what the row itself sees, so that its bits depend on nothing else, also when neighbours
 * in a sequence are computed together; the splits' states are merged in order. Knows rows and pages; knows nothing of layers,
 * roles or workers.
 */

import { splitSpec } from "./split/split_kernel.ts";
import {
  GATHERED_CUTS,
  GATHERED_SPLIT_ROWS,
  jointSplitsOf,
  MATRIX_CUT,
  PLAIN_CUT,
  SPLIT_ROWS,
  type SplitCut,
  splitsOf,
} from "./split/split_cut.ts";
import { rowsTogetherOf, type SplitOptions } from "./split/split_plan.ts";
import { GpuError } from "../errors.ts";
import {
  type AttentionState,
  expectHeadShape,
  expectPagedKv,
  type HeadShape,
  type PagedKv,
  type ScoreOutput,
  type StateForm,
} from "./kv_pages.ts";
import { mergeSplits } from "./merge_states.ts";
import type { Commands } from "../pipeline.ts";
import { BLOCK_WORDS, cutBlocks, listsOf, type RowRange, type ScratchPass, scratchPassesOf } from "./row_blocks.ts";
import { ROW_WORDS, type SetShape } from "./row_table.ts";
import { dispatchRowTiles, rowsOfTiles, type RowTiles } from "./row_tiles.ts";
import { rowTilesFor } from "./tile/matrix_tile_plan.ts";
import { expectRows, type ProductForm } from "../rows.ts";
import { expectTensor, sizeOf, type Tensor } from "../tensor.ts";
import { type Tuning, tuningFor } from "./tuning.ts";

/** The local rows that each row of a call reads. */
export interface Selection {
  /**
   * u32 `[rows of the call, sets, stride]`: local rows, ascending; the first min(selected, kvLimit) of each set count.
   * A set with fewer is padded with `NO_POSITION`.
   */
  readonly positions: Tensor;
  /** Sets a row has room for. */
  readonly sets: number;
  readonly stride: number;
  /** All set shapes that occur among the rows of the call. */
  readonly shapes: readonly SetShape[];
}

/** What `decodeAttention` reads and writes. */
export interface DecodeAttention extends PagedKv {
  readonly shape: HeadShape;
  /** First row of the call in q, out and the row table. */
  readonly firstRow: number;
  readonly rows: number;
  /**
   * f32 `[all rows, heads, headDim]`, rotated, not scaled. Or f16 as `halfQueriesShape` says, rotated and scaled: then matrix
   * tiles compute the call, which must be dense, with other bits.
   */
  readonly q: Tensor;
  /** u32 `[all rows, 8]`, see `row_table.ts`. */
  readonly rowTable: Tensor;
  /** At least the number of KV rows that any of these rows visits. Changes no bits. */
  readonly longest: number;
  /** Usually 1/√headDim. */
  readonly scale: number;
  /** At least as large as `scratchShape` says. */
  readonly scratch: AttentionState;
  /** o `[all rows, heads, headDim]`, lse f32 `[all rows, heads]`. */
  readonly out: AttentionState;
  /** Of `out.o`, as in `Rows`; digits where `canMergeToDigits` says so. @default "f32" */
  readonly outForm?: ProductForm;
  /** Dense calls only. */
  readonly scores?: ScoreOutput;
  /** Given: the call is gathered; else dense. */
  readonly selection?: Selection;
  /**
   * Rows of the call, in order, that are consecutive in one sequence: each visible range begins and ends at most one KV
   * row after the one before. Dense rows without scores then share the reading of K and V. Changes no bits. @default none
   */
  readonly blocks?: readonly RowRange[];
  /** @default what suits the adapter */
  readonly tuning?: Tuning;
  /** Most rows of a block that a workgroup computes. Changes no bits. @default what suits the shape and the adapter */
  readonly rowsTogether?: number;
}

/** Query heads of a workgroup, and their query values: bounds of its memory. */
const MAX_HEADS_TOGETHER = 8;
const MAX_VALUES_TOGETHER = 1024;

/**
 * Attends rows to their KV rows and writes their states.
 * @throws {GpuError} `invalid_shape`, also when scratch is smaller than one row needs
 */
export function decodeAttention(commands: Commands, args: DecodeAttention): void {
  const { shape, firstRow, rows, scratch, rowTable, out, outForm = "f32", selection, scores, longest } = args;
  check(args);
  const tiles = matrixTilesOf(commands, args);
  const cut = tiles === undefined ? plainCut(commands, args) : MATRIX_CUT;
  const splits = splitsOf(cut, longest);
  const states = Math.floor(scratch.lse.byteLength / (4 * shape.heads));
  const rowsPerPass = Math.floor(states / splits);
  if (rowsPerPass === 0) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch attention: scratch holds ${states} states, ${splits} splits are needed`,
    );
  }
  const given = selection !== undefined || scores !== undefined ? [] : args.blocks ?? [];
  const together = tiles === undefined
    ? plainTogether(commands, args, { given, rowsPerPass })
    : Math.min(rowsOfTiles(tiles), args.rowsTogether ?? Infinity, rowsPerPass);
  const blocks = cutBlocks({ first: firstRow, rows }, given, together, tiles === undefined ? "single" : "block");
  for (const pass of scratchPassesOf(blocks, rowsPerPass)) {
    if (tiles === undefined) dispatchBlocks(commands, args, { ...pass, splits, together });
    else dispatchRowTiles(commands, { ...args, outForm: stateFormOf(args) }, { tiles, pass, cut, longest });
    // A single possible split writes the state itself, unless that becomes digits.
    if (splits > 1 || outForm === "digits") {
      const merged = { firstRow: pass.first, rows: pass.rows, parts: scratch, rowTable, cut, out, outForm };
      mergeSplits(commands, { ...merged, shape, tuning: args.tuning });
    }
  }
}

/** Digits are found by the merge alone. */
function stateFormOf({ outForm = "f32" }: DecodeAttention): StateForm {
  return outForm === "digits" ? "parts" : outForm;
}

/** Query heads of a workgroup: all of a KV head, or the largest share that workgroup memory holds. */
function headsTogether({ heads, kvHeads, headDim }: HeadShape): number {
  const group = heads / kvHeads;
  const most = Math.min(MAX_HEADS_TOGETHER, Math.floor(MAX_VALUES_TOGETHER / headDim));
  for (let parts = 1; parts < group; parts++) {
    if (group % parts === 0 && group / parts <= most) return group / parts;
  }
  return 1;
}

/** What distinguishes the variants of a call. */
type Variant = Pick<SplitOptions, "ownSets" | "rowsTogether" | "listed">;

/** Every row of a pass alone: no list is needed. */
const ALONE: Variant = { ownSets: false, rowsTogether: 1, listed: false };

function optionsOf(
  commands: Commands,
  args: DecodeAttention,
  { ownSets, rowsTogether, listed }: Variant,
): SplitOptions {
  const { shape, tuning, scores, selection } = args;
  const software = tuningFor(commands.gpu.info, tuning) === "software";
  return {
    ...shape,
    splitRows: selection === undefined ? SPLIT_ROWS : GATHERED_SPLIT_ROWS[tuningFor(commands.gpu.info, tuning)],
    headsTogether: ownSets ? 1 : headsTogether(shape),
    rowsTogether,
    listed,
    ownSets,
    gathered: selection !== undefined,
    scores: scores !== undefined,
    threads: software ? 64 : 128,
    maxLanes: software ? 1 : 4,
    outForm: stateFormOf(args),
  };
}

function plainCut(commands: Commands, { selection, tuning }: DecodeAttention): SplitCut {
  return selection === undefined ? PLAIN_CUT : GATHERED_CUTS[tuningFor(commands.gpu.info, tuning)];
}

/** Undefined: the call is one for the plain kernels. */
function matrixTilesOf(
  { gpu: { info } }: Commands,
  { shape, q, selection, scores }: DecodeAttention,
): RowTiles | undefined {
  if (q.dtype !== "f16") return undefined;
  const tiles = rowTilesFor(info, shape);
  if (tiles !== undefined && selection === undefined && (scores?.stride ?? 0) % 4 === 0) return tiles;
  const why = tiles === undefined
    ? `no matrix tile takes heads of ${shape.headDim}`
    : "the call reads a choice, or keeps scores at a stride that is no multiple of 4";
  throw new GpuError("invalid_shape", `Cannot dispatch attention of f16 queries: ${why}`);
}

function plainTogether(
  commands: Commands,
  args: DecodeAttention,
  { given, rowsPerPass }: { readonly given: readonly RowRange[]; readonly rowsPerPass: number },
): number {
  const most = given.length === 0 ? 1 : rowsTogether(commands, args);
  return most <= rowsPerPass ? most : 1;
}

function rowsTogether(commands: Commands, args: DecodeAttention): number {
  const { maxWorkgroupBytes } = commands.gpu.info;
  return rowsTogetherOf(optionsOf(commands, args, ALONE), { most: args.rowsTogether ?? Infinity, maxWorkgroupBytes });
}

function dispatchBlocks(
  commands: Commands,
  args: DecodeAttention,
  { blocks, together, ...pass }: ScratchPass & { readonly splits: number; readonly together: number },
) {
  if (blocks.every(({ rows }) => rows === 1)) {
    const shapes = args.selection?.shapes ?? ["kv_head"];
    if (shapes.includes("query_head")) dispatchSplits(commands, args, { ...pass, ...ALONE, ownSets: true });
    if (shapes.some((shape) => shape !== "query_head")) dispatchSplits(commands, args, { ...pass, ...ALONE });
    return;
  }
  for (const rowsTogether of [1, together]) {
    const fitting = blocks.filter(({ rows }) => rows === rowsTogether);
    const splits = jointSplitsOf(PLAIN_CUT, args.longest, rowsTogether);
    for (const list of listsOf(fitting, pass.first)) {
      dispatchSplits(commands, args, { ...pass, ownSets: false, listed: true, rowsTogether, splits, list });
    }
  }
}

interface SplitDispatch extends RowRange, Variant {
  readonly splits: number;
  /** The blocks that it serves; undefined: all rows of the pass, each alone. */
  readonly list?: readonly number[];
}

function dispatchSplits(
  commands: Commands,
  args: DecodeAttention,
  { first, rows, splits, list, ...variant }: SplitDispatch,
) {
  const { shape, q, kv, pageTable, maxPages, rowTable, scratch, out, scores, selection } = args;
  const options = optionsOf(commands, args, variant);
  const kernel = commands.kernel(`attention ${Object.values(options)}`, () => splitSpec(options));
  commands.dispatch(kernel, {
    tensors: [
      ...[q, kv.k, kv.v, pageTable, rowTable, scratch.o, scratch.lse],
      ...(options.outForm === "parts" ? [] : [out.o, out.lse]),
      ...(scores === undefined ? [] : [scores.scores]),
      ...(selection === undefined ? [] : [selection.positions]),
    ],
    params: {
      firstRow: first,
      callRow: first - args.firstRow,
      rows,
      maxPages,
      scale: args.scale,
      scoreStride: scores?.stride ?? 0,
      sets: selection?.sets ?? 0,
      selectionStride: selection?.stride ?? 0,
    },
    ...(list && { list }),
    // Workgroups that read the same K and V run side by side: what one has read, the next finds in the cache.
    groups: [list === undefined ? rows : list.length / BLOCK_WORDS, shape.heads / options.headsTogether, splits],
  });
}

function check(
  { shape, firstRow, rows, q, rowTable, scratch, out, outForm = "f32", scores, selection, longest, ...paged }:
    DecodeAttention,
) {
  const op = "attention";
  const { heads, headDim } = shape;
  const all = firstRow + rows;
  expectHeadShape(op, shape);
  expectTensor(op, q, q.dtype === "f16" ? "f16" : "f32", [all, heads, headDim]);
  expectTensor(op, rowTable, "u32", [all, ROW_WORDS]);
  expectRows(op, { tensor: out.o, form: outForm }, { rows: all, cols: heads * headDim });
  expectTensor(op, out.lse, "f32", [all, heads]);
  expectTensor(op, scratch.o, "f32", [sizeOf(scratch.lse.shape), headDim]);
  expectPagedKv(op, shape, paged);
  if (scores !== undefined) expectTensor(op, scores.scores, "f32", [rows, heads, Math.max(scores.stride, longest)]);
  if (selection === undefined) return;
  const { positions, sets, stride } = selection;
  expectTensor(op, positions, "u32", [rows, sets, Math.max(stride, longest)]);
}
