/** Which tile of the subgroup product takes rows of digits, and its dispatches, for any number of rows; see `subgroup_product.ts`. */

import { DIGIT_LANES } from "../digits.ts";
import type { GpuInfo } from "../gpu.ts";
import type { Commands } from "../pipeline.ts";
import type { ProductForm } from "../rows.ts";
import { isQuantized, QUANTIZED } from "../weights/format.ts";
import type { Weight } from "../weights/weight.ts";
import { spread } from "../wgsl.ts";
import { asDigits } from "./digit_rows.ts";
import type { Multiplied } from "./matrix_rows.ts";
import type { SubgroupCut } from "./subgroup_cut.ts";
import {
  subgroupBytes,
  subgroupProduct,
  subgroupProductName,
  type SubgroupTile,
  weightRowsOf,
} from "./subgroup_product.ts";
import type { TileSize } from "./tile_choice.ts";

/** Subgroups that share the groups of a row. */
const SHARES = 2;
/** Subgroups of a workgroup at most, and weight rows at least: four pairs, where results are paired. */
const MAX_SUBGROUPS = 8;
const MIN_ROWS = 8;
/** Input rows of a product that stores digits, which then keeps the sums of 64 weight rows for each; more are made digits after it. */
const MAX_DIGIT_ROWS = 2;
/**
 * By inputs of a workgroup: weight rows that subgroups share which share a row, and groups of each that a lane asks for together, of
 * 16 bytes or more. Neither changes bits. The products of 32 layers of 8B in q4 take 1.6, 2.0 and 2.4 ms by the first three on an H200,
 * 4.3 by the last on an H100.
 */
const TILES: readonly RowsTile[] = [
  { inputs: 1, outputs: 2, meeting: 1, ahead: { narrow: 2, wide: 1 } },
  { inputs: 2, outputs: 4, meeting: 2, ahead: { narrow: 1, wide: 1 } },
  { inputs: 4, outputs: 4, meeting: 4, ahead: { narrow: 1, wide: 1 } },
  { inputs: 8, outputs: 2, meeting: 8, ahead: { narrow: 1, wide: 1 } },
];
/**
 * In place of the last where it was measured to be faster: it reads half as many digits, which lanes do not share: 20 bytes in place
 * of 40 for a group of a weight row and an input row, beside 16 instructions of four products. For that it keeps twice as many sums.
 */
const LARGE_TILE: RowsTile = { inputs: 8, outputs: 4, meeting: 2, ahead: { narrow: 1, wide: 1 } };

interface RowsTile extends Pick<SubgroupTile, "inputs" | "outputs" | "meeting"> {
  readonly ahead: { readonly narrow: number; readonly wide: number };
}

/** A cut, and which tile takes many of few rows. */
export interface SizedCut extends SubgroupCut {
  /** Changes no bits. @default as measured, else small */
  readonly size?: TileSize;
}

/** The cut for a weight; undefined: it is not quantised, or the adapter has no subgroups of one size, or too few threads. */
export function subgroupCutFor(
  { subgroups, subgroupSize, maxInvocations }: Pick<GpuInfo, "subgroups" | "subgroupSize" | "maxInvocations">,
  { parts }: Pick<Weight, "parts">,
): SubgroupCut | undefined {
  if (!subgroups || subgroupSize === undefined || !parts.every(({ dtype }) => isQuantized(dtype))) return undefined;
  // Two such teams of subgroups at least.
  const fits = 2 * SHARES * subgroupSize <= maxInvocations && subgroupSize >= DIGIT_LANES;
  return fits ? { subgroupSize, shares: SHARES } : undefined;
}

/** Whether so many rows of a gated product are stored as digits by its kernel. */
export function canStoreDigits(rows: number): boolean {
  return rows <= MAX_DIGIT_ROWS;
}

/**
 * Dispatches a product of rows as digits, or of f32 rows.
 * @throws {RangeError} when a part of the weight is not quantised
 */
export function multiplyBySubgroups(
  commands: Commands,
  { weight, x, rows, accumulate = false, scratch, results: { tensors, params, ...pairing } }: Multiplied<ProductForm>,
  { size = commands.tiles.sizeForFew(rows, weight), ...cut }: SizedCut,
): void {
  const digits = asDigits(commands, scratch, { x, rows, cols: weight.cols });
  for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
    if (!isQuantized(dtype)) throw new RangeError(`Cannot multiply ${dtype} by subgroups: it is not quantised`);
    const tile = tileFor(commands.gpu.info, { ...cut, dtype, accumulate, ...pairing }, { rows, size });
    commands.dispatch(commands.kernel(subgroupProductName(tile), () => subgroupProduct(tile)), {
      tensors: [tensor, digits.tensor, ...tensors],
      params: {
        ...{ rows, firstInput: 0, partRows, firstRow, weightRows: weight.rows, eights: weight.cols / 8 },
        ...params,
      },
      groups: spread(Math.ceil(partRows / weightRowsOf(tile)) * Math.ceil(rows / tile.inputs)),
    });
  }
}

/** The tile of the fewest inputs that takes so many rows at once, else of the most that the adapter has room for. */
function tileFor(
  { maxInvocations, maxWorkgroupBytes }: Pick<GpuInfo, "maxInvocations" | "maxWorkgroupBytes">,
  variant: Omit<SubgroupTile, "subgroups" | "ahead" | keyof RowsTile>,
  { rows, size }: { readonly rows: number; readonly size: TileSize | undefined },
): SubgroupTile {
  const fitting = Math.floor(maxInvocations / (variant.subgroupSize * variant.shares)) * variant.shares;
  const subgroups = Math.min(MAX_SUBGROUPS, fitting);
  const width = QUANTIZED[variant.dtype].quantaWords === 4 ? "narrow" : "wide";
  const least = MIN_ROWS * variant.shares / subgroups;
  const tiles = (size === "large" ? TILES.with(-1, LARGE_TILE) : TILES)
    .map(({ inputs, outputs, meeting, ahead }) => ({
      ...variant,
      inputs,
      meeting,
      // Sums of many weight rows meet where digits are stored, those of a few at a time: else fewer workgroups fit a processor.
      outputs: Math.max(variant.gate?.form === "digits" ? 1 : outputs, least),
      ahead: ahead[width],
      subgroups,
    }))
    .filter((tile) => tile.inputs === 1 || subgroupBytes(tile) <= maxWorkgroupBytes);
  const tile = tiles.find(({ inputs }) => inputs >= rows) ?? tiles.at(-1);
  if (tile === undefined) throw new RangeError("Cannot cut a product by subgroups: no tile fits the adapter");
  return tile;
}
