/**
 * The matrix–vector product of quantised weights for GPUs with subgroups: rows come as digits, the lanes of a few subgroups share
 * some weight rows, and each lane has a chain of groups of 32 (see `subgroup_cut.ts`). Knows its tile; `subgroup_rows.ts` chooses
 * it.
 */

import { DIGITS_WGSL } from "../digits.ts";
import type { KernelSpec } from "../pipeline.ts";
import type { ProductForm } from "../rows.ts";
import { addGroups, fetchGroup } from "../weights/dot_groups.ts";
import { GROUP, type QuantizedDType } from "../weights/format.ts";
import { BUILTINS, GROUP_INDEX, unroll } from "../wgsl.ts";
import { describePairing, isPaired, type Pairing, pairingWgsl } from "./paired_results.ts";
import { plainOperands, resultsOf, weightRow } from "./plain_results.ts";
import { chainsOf, RANGES, type SubgroupCut } from "./subgroup_cut.ts";
import { storeSummed } from "./subgroup_results.ts";

/** A variant of the kernel. */
export interface SubgroupTile extends SubgroupCut, Pairing<ProductForm> {
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

/** Weight rows that a workgroup takes at a time. */
function rowsOfSubgroups(
  { subgroups, shares, outputs }: Pick<SubgroupTile, "subgroups" | "shares" | "outputs">,
): number {
  return subgroups / shares * outputs;
}

/** How often it takes so many: once, or until it has the results of a group of digits. */
function roundsOf(tile: SubgroupTile): number {
  return tile.gate?.form === "digits" ? GROUP / resultsOf(tile, rowsOfSubgroups(tile)) : 1;
}

/** Weight rows of a workgroup. */
export function weightRowsOf(tile: SubgroupTile): number {
  return roundsOf(tile) * rowsOfSubgroups(tile);
}

/**
 * Grid: one workgroup for each `weightRowsOf` weight rows and each `inputs` rows of x, made by `spread`; those of the same weight rows
 * are neighbours, so that memory is read once.
 */
export function subgroupProduct(tile: SubgroupTile): KernelSpec {
  const { subgroupSize, shares, outputs, inputs } = tile;
  const rows = rowsOfSubgroups(tile);
  const results = resultsOf(tile, rows);
  const isDigits = tile.gate?.form === "digits";
  return {
    ...(isDigits && { needs: ["subgroups"] }),
    ...plainOperands(tile, { weights: "array<vec4<u32>>", rows: "array<vec4<u32>>" }),
    source: `
      ${pairingWgsl(tile)}
      ${isDigits ? DIGITS_WGSL : ""}
      ${sumsWgsl(tile)}

      @compute @workgroup_size(${threadsOf(tile)}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(tile) ? " / 2u" : ""};
        let passes = (params.rows + ${inputs - 1}u) / ${inputs}u;
        let index = ${GROUP_INDEX};
        let firstResult = index / passes * ${results * roundsOf(tile)}u;
        let firstInput = index % passes * ${inputs}u;
        if (firstResult >= width) { return; }
        let groups = params.eights / 4u;
        let lane = t % ${subgroupSize}u;
        let share = t / ${subgroupSize}u % ${shares}u;
        let own = t / ${subgroupSize * shares}u * ${outputs}u;
        ${unroll(inputs, (m) => `let x${m} = min(firstInput + ${m}u, params.rows - 1u);`)}
        ${
      eachRound(
        tile,
        `let first_n = firstResult + round * ${results}u;
        ${unroll(outputs, (n) => `let w${n} = (${weightRow(tile, `own + ${n}u`, results)}) * groups;`)}
        ${unroll(inputs, (m) => unroll(outputs, (n) => `var sum${m}_${n} = 0.0;`))}
        ${walk(tile)}
        ${meet(tile)}`,
      )
    }
        ${storeSummed({ ...tile, rows, threads: threadsOf(tile) })}
      }`,
  };
}

/** Distance of two chains: odd, so that the lanes of a subgroup write to different banks. */
function chainStride(tile: SubgroupTile): number {
  return rowsOfSubgroups(tile) * tile.inputs + 1;
}

/** Numbers of a workgroup in whose memory the chains of all results meet, and then their ranges. */
function memoryOf(tile: SubgroupTile): { readonly chains: number; readonly ranges: number } {
  // Two in turn: in one, chains of a round are added while those of the next one reach the other.
  const turns = Math.min(2, roundsOf(tile));
  return { chains: turns * chainsOf(tile) * chainStride(tile), ranges: RANGES * weightRowsOf(tile) * tile.inputs };
}

/** Bytes of workgroup memory. */
export function subgroupBytes(tile: SubgroupTile): number {
  const { chains, ranges } = memoryOf(tile);
  return 4 * (chains + ranges);
}

/** `row` counts the rows of all rounds. */
function sumsWgsl(tile: SubgroupTile): string {
  const { chains, ranges } = memoryOf(tile);
  return `var<workgroup> chains: array<f32, ${chains}>;
      var<workgroup> ranges: array<f32, ${ranges}>;
      fn sum_of(input: u32, row: u32) -> f32 {
        let result = row * ${tile.inputs}u + input;
        var sum = 0.0;
        ${unroll(RANGES, (r) => `sum += ranges[result + ${r * ranges / RANGES}u];`)}
        return sum;
      }`;
}

/** Statements of a round, as often as there are rounds; then all sums are there. */
function eachRound(tile: SubgroupTile, body: string): string {
  const rounds = roundsOf(tile);
  const all = rounds === 1
    ? `let round = 0u;
        ${body}`
    : `for (var round = 0u; round < ${rounds}u; round++) {
        ${body}
        }`;
  return `${all}
        workgroupBarrier();`;
}

function meet(tile: SubgroupTile): string {
  const { subgroupSize, inputs, outputs } = tile;
  const results = rowsOfSubgroups(tile) * inputs;
  const ofRange = chainsOf(tile) / RANGES;
  const stride = chainStride(tile);
  const { chains, ranges } = memoryOf(tile);
  const turn = roundsOf(tile) === 1 ? "0u" : `round % 2u * ${chains / 2}u`;
  const chain = `${turn} + (share * ${subgroupSize}u + lane) * ${stride}u`;
  return `${
    unroll(
      inputs,
      (m) => unroll(outputs, (n) => `chains[${chain} + (own + ${n}u) * ${inputs}u + ${m}u] = sum${m}_${n};`),
    )
  }
        workgroupBarrier();
        for (var i = t; i < ${RANGES * results}u; i += ${threadsOf(tile)}u) {
          let first = ${turn} + i / ${results}u * ${ofRange * stride}u + i % ${results}u;
          var sum = 0.0;
          ${unroll(ofRange, (c) => `sum += chains[first + ${c * stride}u];`)}
          ranges[i / ${results}u * ${ranges / RANGES}u + round * ${results}u + i % ${results}u] = sum;
        }`;
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
