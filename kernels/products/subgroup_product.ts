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
  /** Of the inputs, those whose chains meet at a time; a divisor of them, all where digits are stored. */
  readonly meeting: number;
}

/** The kernel's name, different for every variant. */
export function subgroupProductName(
  { dtype, accumulate, subgroupSize, shares, subgroups, outputs, inputs, ahead, meeting, ...pairing }: SubgroupTile,
): string {
  return `subgroup_product ${dtype} ${subgroups}×${subgroupSize}/${shares}:${inputs}×${outputs}×${ahead}${
    meeting < inputs ? ` met by ${meeting}` : ""
  }${accumulate ? " accumulate" : ""}${describePairing(pairing)}`;
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
  return rowsOfSubgroups(tile) * tile.meeting + 1;
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

/** Some inputs at a time. */
function meet(tile: SubgroupTile): string {
  return Array.from({ length: tile.inputs / tile.meeting }, (_, turn) => meetOf(tile, turn * tile.meeting))
    .join("\n        workgroupBarrier();\n        ");
}

function meetOf(tile: SubgroupTile, firstInput: number): string {
  const { subgroupSize, inputs, outputs, meeting } = tile;
  const rows = rowsOfSubgroups(tile);
  const ofRange = chainsOf(tile) / RANGES;
  const stride = chainStride(tile);
  const { chains, ranges } = memoryOf(tile);
  const buffer = roundsOf(tile) === 1 ? "0u" : `round % 2u * ${chains / 2}u`;
  const chain = `${buffer} + (share * ${subgroupSize}u + lane) * ${stride}u`;
  const put = (m: number, n: number) =>
    `chains[${chain} + (own + ${n}u) * ${meeting}u + ${m}u] = sum${firstInput + m}_${n};`;
  return `${unroll(meeting, (m) => unroll(outputs, (n) => put(m, n)))}
        workgroupBarrier();
        for (var i = t; i < ${RANGES * rows * meeting}u; i += ${threadsOf(tile)}u) {
          let result = i % ${rows * meeting}u;
          let range = i / ${rows * meeting}u;
          let first = ${buffer} + range * ${ofRange * stride}u + result;
          var sum = 0.0;
          ${unroll(ofRange, (c) => `sum += chains[first + ${c * stride}u];`)}
          let place = (round * ${rows}u + result / ${meeting}u) * ${inputs}u + ${firstInput}u + result % ${meeting}u;
          ranges[range * ${ranges / RANGES}u + place] = sum;
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
