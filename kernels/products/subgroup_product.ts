/**
 * The matrix–vector product of quantised weights for GPUs with subgroups: rows come as digits, the lanes of a few subgroups share
 * some weight rows, and each lane has a chain of groups of 32 (see `subgroup_cut.ts`). Knows its tile; `subgroup_rows.ts` chooses
 * it.
 */

import type { KernelSpec } from "../pipeline.ts";
import { addGroups, fetchGroup } from "../weights/dot_groups.ts";
import type { QuantizedDType } from "../weights/format.ts";
import { BUILTINS, GROUP_INDEX, unroll } from "../wgsl.ts";
import { describePairing, isPaired, type Pairing, pairingWgsl } from "./paired_results.ts";
import { plainOperands, resultsOf, weightRow } from "./plain_results.ts";
import { chainsOf, RANGES, type SubgroupCut } from "./subgroup_cut.ts";
import { storeSummed } from "./subgroup_results.ts";

/** A variant of the kernel. */
export interface SubgroupTile extends SubgroupCut, Pairing {
  readonly dtype: QuantizedDType;
  readonly accumulate: boolean;
  /** Of a workgroup: a multiple of `shares`. */
  readonly subgroups: number;
  /** Weight rows that subgroups share. */
  readonly outputs: number;
  /** Input rows of a workgroup. */
  readonly inputs: number;
  /** Groups of each weight row that a lane has in flight. */
  readonly ahead: number;
}

/** The kernel's name, different for every variant. */
export function subgroupProductName(
  { dtype, accumulate, subgroupSize, shares, subgroups, outputs, inputs, ahead, ...pairing }: SubgroupTile,
): string {
  return `subgroup_product ${dtype} ${subgroups}×${subgroupSize}/${shares}:${inputs}×${outputs}×${ahead}${
    accumulate ? " accumulate" : ""
  }${describePairing(pairing)}`;
}

/** Weight rows of a workgroup. */
export function rowsOfSubgroups(
  { subgroups, shares, outputs }: Pick<SubgroupTile, "subgroups" | "shares" | "outputs">,
): number {
  return subgroups / shares * outputs;
}

/**
 * Grid: one workgroup for each `rowsOfSubgroups` weight rows and each `inputs` rows of x, made by `spread`; those of the same weight rows
 * are neighbours, so that memory is read once.
 */
export function subgroupProduct(tile: SubgroupTile): KernelSpec {
  const { subgroupSize, shares, outputs, inputs } = tile;
  const rows = rowsOfSubgroups(tile);
  const results = resultsOf(tile, rows);
  return {
    ...plainOperands(tile, { weights: "array<vec4<u32>>", rows: "array<vec4<u32>>" }),
    source: `
      ${pairingWgsl(tile)}
      ${sumsWgsl(tile)}

      @compute @workgroup_size(${threadsOf(tile)}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(tile) ? " / 2u" : ""};
        let passes = (params.rows + ${inputs - 1}u) / ${inputs}u;
        let index = ${GROUP_INDEX};
        let first_n = index / passes * ${results}u;
        let firstInput = index % passes * ${inputs}u;
        if (first_n >= width) { return; }
        let groups = params.eights / 4u;
        let lane = t % ${subgroupSize}u;
        let share = t / ${subgroupSize}u % ${shares}u;
        let own = t / ${subgroupSize * shares}u * ${outputs}u;
        ${unroll(outputs, (n) => `let w${n} = (${weightRow(tile, `own + ${n}u`, results)}) * groups;`)}
        ${unroll(inputs, (m) => `let x${m} = min(firstInput + ${m}u, params.rows - 1u);`)}
        ${unroll(inputs, (m) => unroll(outputs, (n) => `var sum${m}_${n} = 0.0;`))}
        ${walk(tile)}
        ${meet(tile)}
        ${storeSummed({ ...tile, rows, threads: threadsOf(tile) })}
      }`,
  };
}

/** Distance of two chains: odd, so that the lanes of a subgroup write to different banks. */
function chainStride(tile: SubgroupTile): number {
  return rowsOfSubgroups(tile) * tile.inputs + 1;
}

/** Bytes of workgroup memory. */
export function subgroupBytes(tile: SubgroupTile): number {
  return 4 * (chainsOf(tile) * chainStride(tile) + RANGES * rowsOfSubgroups(tile) * tile.inputs);
}

/** Memory in which the chains of all results meet, and then their ranges. */
function sumsWgsl(tile: SubgroupTile): string {
  const results = rowsOfSubgroups(tile) * tile.inputs;
  return `var<workgroup> chains: array<f32, ${chainsOf(tile) * chainStride(tile)}>;
      var<workgroup> ranges: array<f32, ${RANGES * results}>;
      fn sum_of(input: u32, row: u32) -> f32 {
        let result = row * ${tile.inputs}u + input;
        var sum = 0.0;
        ${unroll(RANGES, (r) => `sum += ranges[result + ${r * results}u];`)}
        return sum;
      }`;
}

function meet(tile: SubgroupTile): string {
  const { subgroupSize, inputs, outputs } = tile;
  const results = rowsOfSubgroups(tile) * inputs;
  const ofRange = chainsOf(tile) / RANGES;
  const stride = chainStride(tile);
  const chain = `(share * ${subgroupSize}u + lane) * ${stride}u`;
  return `${
    unroll(
      inputs,
      (m) => unroll(outputs, (n) => `chains[${chain} + (own + ${n}u) * ${inputs}u + ${m}u] = sum${m}_${n};`),
    )
  }
        workgroupBarrier();
        for (var i = t; i < ${RANGES * results}u; i += ${threadsOf(tile)}u) {
          let first = i / ${results}u * ${ofRange * stride}u + i % ${results}u;
          var sum = 0.0;
          ${unroll(ofRange, (c) => `sum += chains[first + ${c * stride}u];`)}
          ranges[i] = sum;
        }
        workgroupBarrier();`;
}

function threadsOf({ subgroupSize, subgroups }: SubgroupTile): number {
  return subgroupSize * subgroups;
}

/** The walk over k: groups that are ahead are asked for together. */
function walk({ dtype, subgroupSize, shares, outputs, inputs, ahead }: SubgroupTile): string {
  const stride = subgroupSize * shares;
  const place = (step: number) => `k + ${step * stride}u`;
  const load = (step: number) =>
    unroll(outputs, (n) => fetchGroup(dtype, "w", { into: `g${step}_${n}`, index: `w${n} + ${place(step)}` }));
  const add = (step: number) =>
    `{ ${
      addGroups(dtype, {
        groups: Array.from({ length: outputs }, (_, n) => `g${step}_${n}`),
        from: "x",
        rows: Array.from({ length: inputs }, (_, m) => `x${m}`),
        group: `(${place(step)})`,
        groupsOfRow: "groups",
        sum: (m, n) => `sum${m}_${n}`,
      })
    } }`;
  const several = `
        for (; k + ${(ahead - 1) * stride}u < groups; k += ${ahead * stride}u) {
          ${unroll(ahead, load)}
          ${unroll(ahead, add)}
        }`;
  return `var k = share * ${subgroupSize}u + lane;
        ${ahead > 1 ? several : ""}
        for (; k < groups; k += ${stride}u) {
          ${load(0)}
          ${add(0)}
        }`;
}
