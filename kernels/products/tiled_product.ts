/**
 * The matrix–matrix product for real GPUs: a workgroup computes a square tile from slices of both operands in shared
 * memory, each thread 8 × 8 results in registers. Knows its tile; `matmul.ts` chooses it. The slices lie k-major, four
 * rows to a vec4, so that one step over k costs four loads for 64 multiply-adds; the next slice is asked for before that.
 * Arrays are nested so that of the indices of those loads one depends on the thread and all others are literals: checks of
 * bounds, which naga puts before each load, are then computed once.
 */

import type { KernelSpec } from "../pipeline.ts";
import type { WeightDType } from "../weights/format.ts";
import { declareEight, decodeEight, fetchEight, weightType } from "../weights/read_eight.ts";
import { BUILTINS, component, GROUP_INDEX, reads, unroll, writes } from "../wgsl.ts";

/** A variant of the kernel. Every result is added in ascending k in each of them, so their bits agree. */
export interface SquareTile {
  readonly dtype: WeightDType;
  readonly accumulate: boolean;
  /** Rows and columns of a tile. */
  readonly side: 64 | 128;
}

/** k of a slice. */
const DEPTH = 16;

/** The kernel's name, different for every variant. */
export function tiledProductName({ dtype, accumulate, side }: SquareTile): string {
  return `tiled_product ${dtype} ${side}${accumulate ? " accumulate" : ""}`;
}

/** Grid: one workgroup for each tile, made by `spread`; tiles of the same weight rows are neighbours. */
export function tiledProduct(tile: SquareTile): KernelSpec {
  const { dtype, side } = tile;
  const threads = side * side / 64;
  const rounds = Array.from({ length: 2 * side / threads }, (_, round) => round);
  const all = (piece: (round: number) => string) => rounds.map(piece).join("\n");
  return {
    bindings: [reads("w", weightType(dtype)), reads("x", "array<vec4<f32>>"), writes("y", "array<f32>")],
    params: [["rows", "u32"], ["partRows", "u32"], ["firstRow", "u32"], ["weightRows", "u32"], ["eights", "u32"]],
    source: `
      // Padded: neighbours start in different banks.
      struct Slice { halves: array<array<vec4<f32>, ${side / 8}>, 2>, padding: vec4<f32> }
      var<workgroup> xs: array<Slice, ${DEPTH}>;
      var<workgroup> ws: array<Slice, ${DEPTH}>;

      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let tile = ${GROUP_INDEX};
        let tiles_m = (params.rows + ${side - 1}u) / ${side}u;
        let first_m = (tile % tiles_m) * ${side}u;
        let first_n = (tile / tiles_m) * ${side}u;
        if (first_n >= params.partRows) { return; }
        let quad_m = t / ${side / 8}u;
        let quad_n = t % ${side / 8}u;
        ${unroll(8, (m) => `var sum${m}_0 = vec4<f32>(); var sum${m}_1 = vec4<f32>();`)}
        ${all((round) => declarePart(tile, round, threads))}
        ${all((round) => fetchPart(tile, round, "0u"))}
        for (var k = 0u; k < params.eights; k += ${DEPTH / 8}u) {
          ${all((round) => putPart(tile, round))}
          workgroupBarrier();
          ${all((round) => fetchPart(tile, round, `k + ${DEPTH / 8}u`))}
          ${unroll(DEPTH, step)}
          workgroupBarrier();
        }
        ${unroll(8, (m) => store(tile, m))}
      }`,
  };
}

/** Each thread brings eight k of one row of both operands, once or twice a slice. */
function declarePart({ dtype }: SquareTile, round: number, threads: number): string {
  return `
        let row${round} = (t + ${round * threads}u) / 2u;
        let eight${round} = t % 2u;
        ${declareEight("f32", `a${round}`)} ${declareEight(dtype, `b${round}`)}`;
}

function fetchPart({ dtype }: SquareTile, round: number, k: string): string {
  const from = (row: string) => `${row} * params.eights + min(${k} + eight${round}, params.eights - 1u)`;
  const x = { into: `a${round}`, index: from(`min(first_m + row${round}, params.rows - 1u)`) };
  const w = { into: `b${round}`, index: from(`min(first_n + row${round}, params.partRows - 1u)`) };
  return `${fetchEight("f32", "x", x)} ${fetchEight(dtype, "w", w)}`;
}

/** Beyond the last k zeros, which change no sum. */
function putPart({ dtype, side }: SquareTile, round: number): string {
  const place = `halves[row${round} / ${side / 2}u][row${round} / 4u % ${side / 8}u][row${round} % 4u]`;
  const put = (to: string, from: string) =>
    ["lo", "hi"].map((half) => `let ${to}_${half} = select(vec4<f32>(), ${from}_${half}, inside);`).join(" ") +
    unroll(8, (i) => `${to}[8u * eight${round} + ${i}u].${place} = ${to}_${i < 4 ? "lo" : "hi"}.${component(i)};`);
  return `{
            let inside = k + eight${round} < params.eights;
            ${decodeEight("f32", `a${round}`)}
            ${decodeEight(dtype, `b${round}`)}
            ${put("xs", `a${round}`)}
            ${put("ws", `b${round}`)}
          }`;
}

/** One k: 8 rows by 8 columns. */
function step(k: number): string {
  return `
          let a${k}_0 = xs[${k}].halves[0][quad_m]; let a${k}_1 = xs[${k}].halves[1][quad_m];
          let b${k}_0 = ws[${k}].halves[0][quad_n]; let b${k}_1 = ws[${k}].halves[1][quad_n];
          ${
    unroll(8, (m) =>
      [0, 1].map((half) => {
        const scalar = `a${k}_${m < 4 ? 0 : 1}.${component(m)}`;
        return `sum${m}_${half} = fma(vec4<f32>(${scalar}), b${k}_${half}, sum${m}_${half});`;
      }).join(" "))
  }`;
}

/** A thread's rows and columns are two groups of four, half a tile apart: neighbours read neighbouring vec4s. */
function store({ side, accumulate }: SquareTile, m: number): string {
  const row = `first_m + ${m < 4 ? 0 : side / 2}u + 4u * quad_m + ${m % 4}u`;
  const put = (half: number, c: number) => `
            if (n + ${half * side / 2 + c}u < params.partRows) {
              y[at + ${half * side / 2 + c}u] = ${
    accumulate ? `y[at + ${half * side / 2 + c}u] + ` : ""
  }sum${m}_${half}.${component(c)};
            }`;
  return `
        if (${row} < params.rows) {
            let n = first_n + 4u * quad_n;
            let at = (${row}) * params.weightRows + params.firstRow + n;
            ${unroll(8, (i) => put(Math.floor(i / 4), i % 4))}
        }`;
}
