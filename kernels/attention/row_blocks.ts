/**
 * How the rows of a call are shared out among workgroups: neighbours in one sequence in blocks, others alone. Knows
 * counts of rows; knows nothing of what a block costs, and nothing on which a row's bits depend.
 */

import { GpuError } from "../errors.ts";

/** Consecutive rows: [first, first + rows). */
export interface RowRange {
  readonly first: number;
  readonly rows: number;
}

/** Blocks that one dispatch serves: what fits beside its other parameters. */
const MAX_LISTED = 24;

/** Words of a block in a kernel's list. */
export const BLOCK_WORDS = 2;

/** Words of a kernel's list of blocks. */
export const LIST_WORDS = MAX_LISTED * BLOCK_WORDS;

/** WGSL: a block of a kernel's list. */
export const LISTED_BLOCK_WGSL = /* wgsl */ `
struct Block { first: u32, rows: u32 }
fn listedBlock(index: u32) -> Block {
  let two = params.list[index / 2u];
  return Block(two[2u * (index % 2u)], two[2u * (index % 2u) + 1u]);
}
`;

/**
 * Cuts a call's rows, in order, into blocks of `together` rows of a given block, and single rows where no block was given.
 * Rows that are left of a given block are a block of their own, or single.
 * @throws {GpuError} `invalid_shape` when given blocks overlap, are out of order or leave the call
 */
export function cutBlocks(
  call: RowRange,
  given: readonly RowRange[],
  together: number,
  rest: "block" | "single",
): RowRange[] {
  const blocks: RowRange[] = [];
  let at = call.first;
  const cut = (end: number, most: number) => {
    if (end < at) {
      throw new GpuError(
        "invalid_shape",
        `Cannot dispatch attention: a block overlaps another or leaves the call: ${end} is before ${at}`,
      );
    }
    while (at < end) {
      const left = rest === "block" ? Math.min(most, end - at) : 1;
      const rows = end - at >= most ? most : left;
      blocks.push({ first: at, rows });
      at += rows;
    }
  };
  for (const { first, rows } of given) {
    cut(first, 1);
    cut(first + rows, together);
  }
  cut(call.first + call.rows, 1);
  return blocks;
}

/** Blocks whose states lie in scratch at the same time, and the rows that they cover. */
export interface ScratchPass extends RowRange {
  readonly blocks: readonly RowRange[];
}

/** Shares consecutive blocks out among passes of at most `rowsPerPass` rows, in order; no block may be larger. */
export function scratchPassesOf(blocks: readonly RowRange[], rowsPerPass: number): ScratchPass[] {
  const passes: ScratchPass[] = [];
  for (const block of blocks) {
    const last = passes.at(-1);
    if (last === undefined || last.rows + block.rows > rowsPerPass) {
      passes.push({ ...block, blocks: [block] });
    } else {
      passes[passes.length - 1] = { ...last, rows: last.rows + block.rows, blocks: [...last.blocks, block] };
    }
  }
  return passes;
}

/** The lists of blocks, for one dispatch each, counted from row `first`. */
export function listsOf(blocks: readonly RowRange[], first: number): number[][] {
  const lists: number[][] = [];
  for (let at = 0; at < blocks.length; at += MAX_LISTED) {
    lists.push(blocks.slice(at, at + MAX_LISTED).flatMap((block) => [block.first - first, block.rows]));
  }
  return lists;
}
