/** Which tile of the subgroup product takes few rows, and its dispatches, for any number of rows; see `subgroup_product.ts`. */

import type { GpuInfo } from "../gpu.ts";
import type { Commands } from "../pipeline.ts";
import { isQuantized } from "../weights/format.ts";
import type { Weight } from "../weights/weight.ts";
import { spread } from "../wgsl.ts";
import type { Multiplied } from "./matrix_rows.ts";
import { inputsFor, MAX_INPUTS } from "./product.ts";
import { rowsOfSubgroups, type SubgroupCut, subgroupProduct, subgroupProductName } from "./subgroup_product.ts";

/** Subgroups of a workgroup at most, and weight rows that those share which share a row; they change no bits. */
const MAX_SUBGROUPS = 8;
const OUTPUTS = 4;
/** Columns from which on twice as many subgroups share a row. */
const LONG_ROWS = 8192;

/** The cut for a weight; undefined: it is not quantised, or the adapter has no subgroups of one size, or too few threads. */
export function subgroupCutFor(
  { subgroups, subgroupSize, maxInvocations }: Pick<GpuInfo, "subgroups" | "subgroupSize" | "maxInvocations">,
  { cols, parts }: Pick<Weight, "cols" | "parts">,
): SubgroupCut | undefined {
  if (!subgroups || subgroupSize === undefined || !parts.every(({ dtype }) => isQuantized(dtype))) return undefined;
  const shares = cols >= LONG_ROWS ? 4 : 2;
  // Eight weight rows at least: four pairs, where results are paired.
  return 2 * shares * subgroupSize <= maxInvocations ? { subgroupSize, shares } : undefined;
}

/**
 * Dispatches a product of f32 rows.
 * @throws {RangeError} when a part of the weight is not quantised
 */
export function multiplyBySubgroups(
  commands: Commands,
  { weight, x, rows, accumulate = false, results }: Multiplied,
  cut: SubgroupCut,
): void {
  const { tensors, params, ...pairing } = results;
  const { maxInvocations } = commands.gpu.info;
  const fitting = Math.floor(maxInvocations / (cut.subgroupSize * cut.shares)) * cut.shares;
  const subgroups = Math.min(MAX_SUBGROUPS, fitting);
  for (let firstInput = 0; firstInput < rows; firstInput += MAX_INPUTS) {
    const inputs = inputsFor(rows - firstInput);
    for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
      if (!isQuantized(dtype)) throw new RangeError(`Cannot multiply ${dtype} by subgroups: it is not quantised`);
      const tile = { ...cut, dtype, accumulate, inputs, subgroups, outputs: OUTPUTS, ...pairing };
      commands.dispatch(commands.kernel(subgroupProductName(tile), () => subgroupProduct(tile)), {
        tensors: [tensor, x.tensor, ...tensors],
        params: {
          ...{ rows, firstInput, partRows, firstRow, weightRows: weight.rows, eights: weight.cols / 8 },
          ...params,
        },
        groups: spread(Math.ceil(partRows / rowsOfSubgroups(tile))),
      });
    }
  }
}
