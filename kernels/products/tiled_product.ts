/**
 * The matrix–matrix product for real GPUs: a workgroup computes a square tile from slices of both operands in shared
 * memory, each thread 8 × 8 results in registers. Knows its tile; `matmul.ts` chooses it. The slices lie k-major, four
 * rows to a vec4, so that one step over k costs four loads for 64 multiply-adds.
 */

import type { KernelSpec } from "../pipeline.ts";
import type { WeightDType } from "../weights/format.ts";
import { readEight, weightType } from "../weights/read_eight.ts";
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
  // One vec4 of padding: rows of a slice start in different banks.
  const stride = side / 4 + 1;
  return {
    bindings: [reads("w", weightType(dtype)), reads("x", "array<vec4<f32>>"), writes("y", "array<f32>")],
    params: [["rows", "u32"], ["partRows", "u32"], ["firstRow", "u32"], ["weightRows", "u32"], ["eights", "u32"]],
    source: `
      var<workgroup> xs: array<vec4<f32>, ${DEPTH * stride}>;
      var<workgroup> ws: array<vec4<f32>, ${DEPTH * stride}>;

      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let tile = ${GROUP_INDEX};
        let tiles_m = (params.rows + ${side - 1}u) / ${side}u;
        let first_m = (tile % tiles_m) * ${side}u;
        let first_n = (tile / tiles_m) * ${side}u;
        if (first_n >= params.partRows) { return; }
        let quad_m = t / ${side / 8}u;
        let quad_n = t % ${side / 8}u;
        ${unroll(8, (m) => `var sum${m}_0 = vec4<f32>(); var sum${m}_1 = vec4<f32>();`)}
        for (var k = 0u; k < params.eights; k += ${DEPTH / 8}u) {
          ${unroll(128 / side, (i) => fillSlices(tile, i))}
          workgroupBarrier();
          ${unroll(DEPTH, (k) => step(k, stride, side))}
          workgroupBarrier();
        }
        ${unroll(8, (m) => store(tile, m))}
      }`,
  };
}

/** Each thread brings eight k of one row of both operands; beyond the last k it brings zeros, which change no sum. */
function fillSlices({ dtype, side }: SquareTile, round: number): string {
  const threads = side * side / 64;
  const stride = side / 4 + 1;
  const put = (to: string, from: string) =>
    unroll(8, (i) =>
      `${to}[(8u * eight + ${i}u) * ${stride}u + row / 4u][row % 4u] = ` +
      `select(0.0, ${from}_${i < 4 ? "lo" : "hi"}.${component(i)}, inside);`);
  return `{
            let row = (t + ${round * threads}u) / 2u;
            let eight = t % 2u;
            let inside = k + eight < params.eights;
            let at = min(k + eight, params.eights - 1u);
            ${readEight("f32", "x", { into: "a", index: "min(first_m + row, params.rows - 1u) * params.eights + at" })}
            ${
    readEight(dtype, "w", { into: "b", index: "min(first_n + row, params.partRows - 1u) * params.eights + at" })
  }
            ${put("xs", "a")}
            ${put("ws", "b")}
          }`;
}

/** One k: 8 rows by 8 columns. */
function step(k: number, stride: number, side: number): string {
  const at = (quad: string, half: number) => `${k * stride + half * side / 8}u + ${quad}`;
  return `
          let a${k}_0 = xs[${at("quad_m", 0)}]; let a${k}_1 = xs[${at("quad_m", 1)}];
          let b${k}_0 = ws[${at("quad_n", 0)}]; let b${k}_1 = ws[${at("quad_n", 1)}];
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
