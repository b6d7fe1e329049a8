/**
 * Which rows a workgroup of the matrix tile takes, which KV blocks it walks over, and where its states go: rows of a chunk
 * see all they may at once; decode rows are cut into splits, whose states are merged after.
 */

import { type SplitCut, splitLengthWgsl } from "../split/split_cut.ts";
import type { RowForm } from "../../rows.ts";
import type { Plan } from "./matrix_tile_plan.ts";

/** Declares firstToken, lastToken, their table entries `first` and `last`, and the blocks from `begin` to `end`. */
export function chunkRowsWgsl({ tokens, blockRows }: Plan): string {
  return /* wgsl */ `
  // The last tokens see most and take longest: they go first.
  let firstToken = (grid.x - 1u - workgroup.x) * ${tokens}u;
  let lastToken = min(firstToken + ${tokens}u, params.rows) - 1u;
  ${ENTRIES_WGSL}
  let begin = first.z / ${blockRows}u;
  let end = (last.w + ${blockRows - 1}u) / ${blockRows}u;`;
}

/**
 * The same for a block of decode rows of one sequence and one split, counted from the first that any of its rows sees. Where
 * some rows are cut at one length and some at the next, the splits of the shorter come first.
 */
export function splitRowsWgsl({ blockRows }: Plan): string {
  return /* wgsl */ `
  var block = Block(workgroup.x, 1u);
  if (params.listed == 1u) { block = listedBlock(workgroup.x); }
  let firstToken = block.first;
  let lastToken = firstToken + block.rows - 1u;
  ${ENTRIES_WGSL}
  // Of bounds of what any of the rows sees: that may rise and fall by a row from each to the next.
  let shorter = splitLength(first.w - min(first.w, last.z));
  let longer = splitLength(last.w - min(last.w, first.z));
  let ofShorter = (last.w + shorter - 1u) / shorter - first.z / shorter;
  var length = shorter;
  var split = first.z / shorter + workgroup.z;
  if (shorter != longer && workgroup.z >= ofShorter) {
    length = longer;
    split = first.z / longer + workgroup.z - ofShorter;
  }
  let begin = max(first.z, split * length) / ${blockRows}u;
  let end = (min(last.w, (split + 1u) * length) + ${blockRows - 1}u) / ${blockRows}u;
  // The first split of a row that sees nothing writes its empty state.
  if (begin >= end && workgroup.z > 0u) { return; }`;
}

const ENTRIES_WGSL = /* wgsl */ `
  let first = rowTable[2u * (params.firstRow + firstToken)];
  let last = rowTable[2u * (params.firstRow + lastToken)];`;

/** WGSL: which of its parts a row has from a split, if any; a row of a single part has its state there. */
export function partWgsl(cut: SplitCut): string {
  return /* wgsl */ `${splitLengthWgsl(cut)}
struct Part { index: u32, exists: bool, isWhole: bool }
fn partOf(visible: vec2<u32>, split: u32, length: u32, isFirst: bool) -> Part {
  if (visible.y <= visible.x) { return Part(0u, isFirst, true); }
  let isOwn = splitLength(visible.y - visible.x) == length;
  let begins = visible.x / length;
  let parts = (visible.y - 1u) / length - begins + 1u;
  return Part(split - begins, isOwn && split >= begins && split - begins < parts, parts == 1u);
}
`;
}

/** Where one value of a token's head goes. */
export interface StateStore {
  readonly token: string;
  /** Among those of the KV head. */
  readonly head: string;
  /** The statement, for an array, the form of outputs there, and the index of a state in it. */
  readonly store: (to: { readonly array: "out" | "parts"; readonly form: RowForm }, at: string) => string;
}

/** Stores to the outputs, or to the parts of a split. */
export function storeStateWgsl({ cut, heads, group, outForm }: Plan, { token, head, store }: StateStore): string {
  const at = (row: string) => `(${row}) * ${heads}u + kvHead * ${group}u + ${head}`;
  const whole = (form: RowForm) => store({ array: "out", form }, at(`params.firstRow + ${token}`));
  if (cut === "chunk") {
    if (outForm === "parts") {
      throw new RangeError("Cannot make a tile for chunks: its outputs are parts, which nothing merges");
    }
    return whole(outForm);
  }
  const part = store({ array: "parts", form: "f32" }, at(`part.index * params.rows + ${token}`));
  return `
    let part = partOf(rowTable[2u * (params.firstRow + ${token})].zw, split, length, workgroup.z == 0u);
    ${
    outForm === "parts" ? `if (part.exists) { ${part} }` : `if (part.exists && part.isWhole) { ${whole(outForm)} }
    if (part.exists && !part.isWhole) { ${part} }`
  }`;
}
