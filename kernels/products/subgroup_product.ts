/**
 * The matrix–vector product of quantised weights for GPUs with subgroups: the lanes of a few subgroups share some weight rows, each
 * lane taking every n-th eight, and one subgroup operation adds what its lanes have. Knows its tile; `subgroup_rows.ts` chooses
 * it.
 */

import type { PlaceVariant } from "../attention/place_heads.ts";
import type { KernelSpec } from "../pipeline.ts";
import { addEights, fetchQuanta, QUANTA_TYPE } from "../weights/dot_eights.ts";
import type { QuantizedDType } from "../weights/format.ts";
import { BUILTINS, GROUP_INDEX, unroll } from "../wgsl.ts";
import { describePairing, isPaired, type Pairing, pairingWgsl, placeFourWgsl } from "./paired_results.ts";
import { plainOperands, resultsOf, storeResult, weightRow } from "./plain_results.ts";

/** What orders the additions of a row: it follows from the adapter and the weight's shape. */
export interface SubgroupCut {
  readonly subgroupSize: number;
  /** Subgroups that share the eights of a row: each takes as many as it has lanes, in turn. */
  readonly shares: number;
}

/** A variant of the kernel. */
export interface SubgroupTile extends SubgroupCut, Pairing {
  readonly dtype: QuantizedDType;
  readonly accumulate: boolean;
  /** Of a workgroup: a multiple of `shares`. */
  readonly subgroups: number;
  /** Weight rows that subgroups share. */
  readonly outputs: number;
  /** Input rows of a dispatch. */
  readonly inputs: number;
}

/** The kernel's name, different for every variant. */
export function subgroupProductName(
  { dtype, accumulate, subgroupSize, shares, subgroups, outputs, inputs, ...pairing }: SubgroupTile,
): string {
  return `subgroup_product ${dtype} ${subgroups}×${subgroupSize}/${shares}:${inputs}×${outputs}${
    accumulate ? " accumulate" : ""
  }${describePairing(pairing)}`;
}

/** Weight rows of a workgroup. */
export function rowsOfSubgroups(
  { subgroups, shares, outputs }: Pick<SubgroupTile, "subgroups" | "shares" | "outputs">,
): number {
  return subgroups / shares * outputs;
}

/** Grid: one workgroup for each `rowsOfSubgroups` weight rows, made by `spread`. */
export function subgroupProduct(tile: SubgroupTile): KernelSpec {
  const { subgroupSize, shares, outputs, inputs, heads } = tile;
  const rows = rowsOfSubgroups(tile);
  const results = resultsOf(tile, rows);
  return {
    needs: ["subgroups"],
    ...plainOperands(tile, QUANTA_TYPE),
    source: `
      ${pairingWgsl(tile)}
      var<workgroup> parts: array<f32, ${shares * rows * inputs}>;
      fn sum_of(input: u32, row: u32) -> f32 {
        var sum = parts[row * ${inputs}u + input];
        ${unroll(shares - 1, (s) => `sum += parts[(row + ${(s + 1) * rows}u) * ${inputs}u + input];`)}
        return sum;
      }

      @compute @workgroup_size(${threadsOf(tile)}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(tile) ? " / 2u" : ""};
        let first_n = (${GROUP_INDEX}) * ${results}u;
        if (first_n >= width) { return; }
        let lane = t % ${subgroupSize}u;
        let share = t / ${subgroupSize}u % ${shares}u;
        let own = t / ${subgroupSize * shares}u * ${outputs}u;
        ${unroll(outputs, (n) => `let w${n} = (${weightRow(tile, `own + ${n}u`, results)}) * params.eights;`)}
        ${unroll(inputs, (m) => `let x${m} = min(params.firstInput + ${m}u, params.rows - 1u) * params.eights;`)}
        ${unroll(inputs, (m) => unroll(outputs, (n) => `var sum${m}_${n} = 0.0;`))}
        ${walk(tile)}
        ${
      unroll(inputs, (m) =>
        unroll(outputs, (n) =>
          `let all${m}_${n} = subgroupAdd(sum${m}_${n});
        if (lane == 0u) { parts[(share * ${rows}u + own + ${n}u) * ${inputs}u + ${m}u] = all${m}_${n}; }`))
    }
        workgroupBarrier();
        ${heads === undefined ? store(tile) : placeResults(tile, heads)}
      }`,
  };
}

function threadsOf({ subgroupSize, subgroups }: SubgroupTile): number {
  return subgroupSize * subgroups;
}

/** The walk over k. Two eights a round keep twice the loads in flight; with many inputs the arithmetic hides them anyway. */
function walk({ dtype, subgroupSize, shares, outputs, inputs }: SubgroupTile): string {
  const stride = subgroupSize * shares;
  const load = (ahead: number) =>
    unroll(
      outputs,
      (n) => fetchQuanta(dtype, "w", { into: `e${ahead}_${n}`, index: `w${n} + k + ${ahead * stride}u` }),
    );
  const add = (ahead: number) =>
    `{ ${
      addEights(dtype, {
        eights: Array.from({ length: outputs }, (_, n) => `e${ahead}_${n}`),
        inputs,
        input: (m, four) => `x[2u * (x${m} + k + ${ahead * stride}u) + ${four}u]`,
        sum: (m, n) => `sum${m}_${n}`,
      })
    } }`;
  const pairs = `
        for (; k + ${stride}u < params.eights; k += ${2 * stride}u) {
          ${load(0)}
          ${load(1)}
          ${add(0)}
          ${add(1)}
        }`;
  return `var k = share * ${subgroupSize}u + lane;
        ${inputs <= 2 ? pairs : ""}
        for (; k < params.eights; k += ${stride}u) {
          ${load(0)}
          ${add(0)}
        }`;
}

function store(tile: SubgroupTile): string {
  const results = resultsOf(tile, rowsOfSubgroups(tile));
  const sum = (row: string) => `sum_of(i / ${results}u, ${row})`;
  return `for (var i = t; i < ${tile.inputs * results}u; i += ${threadsOf(tile)}u) {
          let row = i % ${results}u;
          let m = params.firstInput + i / ${results}u;
          let n = first_n + row;
          if (m < params.rows && n < width) {
            ${storeResult(tile, [sum("row"), sum(`row + ${results}u`)])}
          }
        }`;
}

/** Four pairs of an input row at a time. */
function placeResults(tile: SubgroupTile, heads: PlaceVariant): string {
  const results = resultsOf(tile, rowsOfSubgroups(tile));
  const fours = results / 4;
  const four = (first: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((c) => `sum_of(i / ${fours}u, row + ${first + c}u)`).join(", ")})`;
  return `for (var i = t; i < ${tile.inputs * fours}u; i += ${threadsOf(tile)}u) {
          let row = i % ${fours}u * 4u;
          let input = params.firstInput + i / ${fours}u;
          if (input < params.rows && first_n + row < width) {
            ${placeFourWgsl(heads, { row: "input", pair: "first_n + row", sums: [four(0), four(results)] })}
          }
        }`;
}
