/**
 * The matrix–vector product for real GPUs: a workgroup's threads share a few weight rows, each thread taking every n-th
 * group of eight, so that loads are contiguous and many are in flight. Knows its tile; `matvec.ts` chooses it.
 */

import type { PlaceVariant } from "../attention/place_heads.ts";
import type { KernelSpec } from "../pipeline.ts";
import type { WeightDType } from "../weights/format.ts";
import { readEight, weightType } from "../weights/read_eight.ts";
import { describePairing, isPaired, type Pairing, pairingWgsl, placeFourWgsl } from "./paired_results.ts";
import { plainOperands, resultsOf, storeResult, weightRow } from "./plain_results.ts";
import { addEight, BUILTINS, GROUP_INDEX, halvings, unroll } from "../wgsl.ts";

/**
 * A variant of the kernel. A row's bits depend on `threads` alone, which therefore follows from the weight's shape:
 * every thread adds its groups in ascending k, and one fixed tree adds the threads.
 */
export interface TeamTile extends Pairing {
  readonly dtype: WeightDType;
  readonly accumulate: boolean;
  /** A power of two. */
  readonly threads: number;
  /** Weight rows of a workgroup; 8 for heads. */
  readonly outputs: number;
  /** Input rows of a dispatch; inputs × outputs is a multiple of 4. */
  readonly inputs: number;
}

/** The kernel's name, different for every variant. */
export function teamProductName({ dtype, accumulate, threads, outputs, inputs, ...pairing }: TeamTile): string {
  return `team_product ${dtype} ${threads}:${inputs}×${outputs}${accumulate ? " accumulate" : ""}${
    describePairing(pairing)
  }`;
}

/** Grid: one workgroup for each `outputs` weight rows, made by `spread`. */
export function teamProduct(tile: TeamTile): KernelSpec {
  const { dtype, threads, outputs, inputs } = tile;
  const results = resultsOf(tile, outputs);
  const each = (piece: (input: number, output: number) => string) =>
    unroll(inputs, (m) => unroll(outputs, (n) => piece(m, n)));
  return {
    ...plainOperands(tile, { weights: weightType(dtype) }),
    source: `
      ${pairingWgsl(tile)}
      var<workgroup> parts: array<vec4<f32>, ${threads * inputs * outputs / 4}>;

      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(tile) ? " / 2u" : ""};
        let first_n = (${GROUP_INDEX}) * ${results}u;
        if (first_n >= width) { return; }
        ${unroll(outputs, (n) => `let w${n} = (${weightRow(tile, `${n}u`, results)}) * params.eights;`)}
        ${unroll(inputs, (m) => `let x${m} = min(params.firstInput + ${m}u, params.rows - 1u) * params.eights;`)}
        ${each((m, n) => `var sum${m}_${n} = 0.0;`)}
        var k = t;
        ${walk(tile)}
        ${addThreads(tile)}
        workgroupBarrier();
        ${store(tile)}
      }`,
  };
}

function store(tile: TeamTile): string {
  const { threads, outputs, inputs, heads } = tile;
  if (heads !== undefined) return placeResults(tile, heads);
  const results = resultsOf(tile, outputs);
  const sum = (index: string) => `parts[(${index}) / 4u * ${threads}u][(${index}) % 4u]`;
  const first = `t / ${results}u * ${outputs}u + t % ${results}u`;
  return `if (t < ${inputs * results}u) {
          let m = params.firstInput + t / ${results}u;
          let n = first_n + t % ${results}u;
          if (m < params.rows && n < width) {
            ${storeResult(tile, [sum(first), sum(`${first} + ${results}u`)])}
          }
        }`;
}

/** A thread places the heads' four pairs of an input row: a team has eight weight rows. */
function placeResults({ threads, inputs }: TeamTile, heads: PlaceVariant): string {
  const four = (second: number) => `parts[(2u * t + ${second}u) * ${threads}u]`;
  return `if (t < ${inputs}u && params.firstInput + t < params.rows) {
          ${placeFourWgsl(heads, { row: "params.firstInput + t", pair: "first_n", sums: [four(0), four(1)] })}
        }`;
}

/** The tree that adds the threads' sums, four results to a vec4. */
function addThreads({ threads, outputs, inputs }: TeamTile): string {
  const quads = inputs * outputs / 4;
  const sum = (index: number) => `sum${Math.floor(index / outputs)}_${index % outputs}`;
  const four = (quad: number) => [0, 1, 2, 3].map((c) => sum(4 * quad + c)).join(", ");
  const part = (quad: number, ahead: number) => `parts[${quad * threads + ahead}u + t]`;
  return `${unroll(quads, (q) => `${part(q, 0)} = vec4<f32>(${four(q)});`)}
        ${halvings(threads, (half) => unroll(quads, (q) => `${part(q, 0)} += ${part(q, half)};`))}`;
}

/** The walk over k. Two groups a round keep twice the loads in flight; with many inputs the arithmetic hides them anyway. */
function walk({ dtype, threads, outputs, inputs }: TeamTile): string {
  const load = (ahead: number) =>
    unroll(outputs, (n) => readEight(dtype, "w", { into: `h${ahead}_${n}`, index: `w${n} + k + ${ahead * threads}u` }));
  const add = (ahead: number) =>
    unroll(inputs, (m) =>
      readEight("f32", "x", { into: `v${ahead}_${m}`, index: `x${m} + k + ${ahead * threads}u` }) +
      unroll(outputs, (n) => addEight(`sum${m}_${n}`, `h${ahead}_${n}`, `v${ahead}_${m}`)));
  const pairs = `
        for (; k + ${threads}u < params.eights; k += ${2 * threads}u) {
          ${load(0)}
          ${load(1)}
          ${add(0)}
          ${add(1)}
        }`;
  return `${inputs <= 2 ? pairs : ""}
        for (; k < params.eights; k += ${threads}u) {
          ${load(0)}
          ${add(0)}
        }`;
}
