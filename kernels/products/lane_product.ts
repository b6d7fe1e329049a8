/**
 * The matrix product for software adapters: each lane owns whole weight rows, and walks k with the input rows in step.
 * Knows its tile; `matvec.ts` and `matmul.ts` decide when to use it. All lanes of a workgroup read the same input, which
 * a CPU driver turns into one scalar load and a broadcast, while every other access is a gather; so nothing is shared.
 */

import type { KernelSpec } from "../pipeline.ts";
import type { WeightDType } from "../weights/format.ts";
import { readEight, weightType } from "../weights/read_eight.ts";
import { addEight, BUILTINS, reads, unroll, writes } from "../wgsl.ts";

/** Threads in a workgroup. */
export const LANES = 32;

/** A variant of the kernel. The sums of a row are added in ascending k in every one of them, so their bits agree. */
export interface LaneTile {
  readonly dtype: WeightDType;
  readonly accumulate: boolean;
  /** Input rows a workgroup takes. */
  readonly inputs: number;
  /** Weight rows a lane takes, `LANES` apart. */
  readonly outputs: number;
}

/** The kernel's name, different for every variant. */
export function laneProductName({ dtype, accumulate, inputs, outputs }: LaneTile): string {
  return `lane_product ${dtype} ${inputs}×${outputs}${accumulate ? " accumulate" : ""}`;
}

/** Grid: weight rows over x, input rows over y. */
export function laneProduct({ dtype, accumulate, inputs, outputs }: LaneTile): KernelSpec {
  const each = (piece: (input: number, output: number) => string) =>
    unroll(inputs, (m) => unroll(outputs, (n) => piece(m, n)));
  return {
    bindings: [reads("w", weightType(dtype)), reads("x", "array<vec4<f32>>"), writes("y", "array<f32>")],
    params: [["rows", "u32"], ["partRows", "u32"], ["firstRow", "u32"], ["weightRows", "u32"], ["eights", "u32"]],
    source: `
      @compute @workgroup_size(${LANES}) fn main(${BUILTINS}) {
        let first_n = group.x * ${LANES * outputs}u + t;
        let first_m = group.y * ${inputs}u;
        ${unroll(outputs, (n) => `let w${n} = min(first_n + ${n * LANES}u, params.partRows - 1u) * params.eights;`)}
        ${unroll(inputs, (m) => `let x${m} = min(first_m + ${m}u, params.rows - 1u) * params.eights;`)}
        ${each((m, n) => `var sum${m}_${n} = 0.0;`)}
        for (var k = 0u; k < params.eights; k += 1u) {
          ${unroll(outputs, (n) => readEight(dtype, "w", { into: `h${n}`, index: `w${n} + k` }))}
          ${
      unroll(inputs, (m) =>
        readEight("f32", "x", { into: `v${m}`, index: `x${m} + k` }) +
        unroll(outputs, (n) => addEight(`sum${m}_${n}`, `h${n}`, `v${m}`)))
    }
        }
        ${
      each((m, n) => `
        if (first_m + ${m}u < params.rows && first_n + ${n * LANES}u < params.partRows) {
          let at = (first_m + ${m}u) * params.weightRows + params.firstRow + first_n + ${n * LANES}u;
          y[at] = ${accumulate ? "y[at] + " : ""}sum${m}_${n};
        }`)
    }
      }`,
  };
}
