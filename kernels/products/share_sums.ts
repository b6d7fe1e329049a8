/**
 * What becomes of the sums that `share_product.ts` leaves: those of all shares meet in their order, and are stored as those of
 * `row_product.ts` are, with the same bits.
 */

import type { KernelSpec } from "../pipeline.ts";
import { BUILTINS, GROUP_INDEX, reads, unroll } from "../wgsl.ts";
import { describePairing, isPaired, pairedRow, pairingWgsl, resultBindings, resultParams } from "./paired_results.ts";
import { PRODUCT_PARAMS } from "./product.ts";
import { storeColumn } from "./row_results.ts";
import { outputsOf, type RowProduct, rowsOf, type RowTile, threadsOf } from "./row_tile.ts";

/** A variant of the kernel. */
export type ShareSums = Omit<RowProduct, "tile" | "dtype" | "ragged">;

/** A workgroup takes one column fragment of some outputs. */
const TILE: RowTile = { outputs: 2, across: 1, turns: 1, ahead: 1, columns: 1, rounds: 1 };

/** The variant as the files that store sums take it. */
function rowVariantOf(variant: ShareSums): RowProduct {
  return { ...variant, tile: TILE, dtype: "f16", ragged: false };
}

/** The kernel's name, which tells all variants apart. */
export function shareSumsName({ shape, shares, accumulate, ...pairing }: ShareSums): string {
  return `share_sums ${shares} of ${shape.m}×${shape.n}${accumulate ? " accumulate" : ""}${describePairing(pairing)}`;
}

/** Weight rows of a workgroup. */
export function shareSumsOutputs({ shape }: Pick<ShareSums, "shape">): number {
  return outputsOf(shape, TILE);
}

/** Grid: one workgroup for each column fragment of each `shareSumsOutputs` weight rows, made by `spread`. */
export function shareSums(sums: ShareSums): KernelSpec {
  const variant = rowVariantOf(sums);
  const { shape } = variant;
  const results = outputsOf(shape, TILE) / (isPaired(variant) ? 2 : 1);
  return {
    bindings: [
      reads("sums", "array<f32>"),
      ...resultBindings(variant),
    ],
    params: [
      ...PRODUCT_PARAMS,
      ["fragments", "u32"],
      ["sumRows", "u32"],
      ...resultParams(variant),
    ],
    source: /* wgsl */ `
      ${pairingWgsl(variant)}
      ${sumOfWgsl(variant)}

      @compute @workgroup_size(${threadsOf(variant)}) fn main(${BUILTINS}) {
        let index = ${GROUP_INDEX};
        let width = params.partRows${isPaired(variant) ? " / 2u" : ""};
        let firstOutput = index / params.fragments * ${results}u;
        if (firstOutput >= width) { return; }
        let firstInput = params.firstInput + index % params.fragments * ${rowsOf(shape, TILE)}u;
        place = SumPlace(index % params.fragments, firstOutput, width);
        ${storeColumn(variant, 0)}
      }`,
  };
}

/** WGSL of `sum_of(part)`, as `row_results.ts` has it: of an output of the workgroup, and the first column of a row. */
function sumOfWgsl(variant: RowProduct): string {
  const { shape: { n }, shares } = variant;
  const output = `part / ${n}u`;
  const row = isPaired(variant)
    ? pairedRow(variant, output, {
      first: "place.firstOutput",
      count: outputsOf(variant.shape, TILE) / 2,
      all: "place.width",
    })
    : `place.firstOutput + ${output}`;
  return `
      struct SumPlace { fragment: u32, firstOutput: u32, width: u32 }
      var<private> place: SumPlace;
      fn sum_of(part: u32) -> f32 {
        let share = params.fragments * params.sumRows * ${n}u;
        let first = (place.fragment * params.sumRows + ${row}) * ${n}u + part % ${n}u;
        var high = sums[first];
        var low = sums[first + 1u];
        ${
    unroll(shares - 1, (s) => `high += sums[first + ${s + 1}u * share]; low += sums[first + ${s + 1}u * share + 1u];`)
  }
        return high + low;
      }`;
}
