/**
 * Root-mean-square normalisation of rows: hidden states, or the heads of queries and keys (rows = tokens × heads).
 * Knows one row at a time.
 */

import { GpuError } from "./errors.ts";
import type { Commands, KernelSpec } from "./pipeline.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, sumOverWorkgroup, writes } from "./wgsl.ts";

/** Operands of a normalisation. */
export interface RmsNorm {
  /** f32 [rows, cols] */
  readonly x: Tensor;
  /** f32 [cols] */
  readonly weight: Tensor;
  /** f32 [rows, cols], in a buffer other than `x` */
  readonly out: Tensor;
  /** Whether the normed rows are added to what `out` holds. @default false */
  readonly accumulate?: boolean;
  readonly rows: number;
  /** A multiple of 4. */
  readonly cols: number;
  readonly epsilon: number;
}

/**
 * Computes out (+)= x / √(mean(x²) + ε) · weight for each row.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit or `cols` is not a multiple of 4
 */
export function rmsNorm(
  commands: Commands,
  { x, weight, out, rows, cols, epsilon, accumulate = false }: RmsNorm,
): void {
  if (cols % 4 !== 0) {
    throw new GpuError("invalid_shape", `Cannot dispatch rms_norm: ${cols} columns are not a multiple of 4`);
  }
  expectTensor("rms_norm", x, "f32", [rows, cols]);
  expectTensor("rms_norm", weight, "f32", [cols]);
  expectTensor("rms_norm", out, "f32", [rows, cols]);
  const threads = threadsFor(cols);
  const name = `rms_norm ${threads}${accumulate ? " accumulate" : ""}`;
  commands.dispatch(commands.kernel(name, () => spec(threads, accumulate)), {
    tensors: [x, weight, out],
    params: { rows, quads: cols / 4, epsilon },
    groups: spread(rows),
  });
}

/** At least four vec4s a thread; the choice depends on the width alone, so that a row's bits do too. */
function threadsFor(cols: number): number {
  return [256, 128, 64].find((threads) => cols >= 16 * threads) ?? 32;
}

/**
 * WGSL: `scale`, 1 / √(mean(x²) + ε) of the `params.quads` vectors of `x` from `first` on. Needs `sumOverWorkgroup`; each row
 * is a workgroup's.
 */
export function normScaleWgsl(threads: number): string {
  return `
        var squares = 0.0;
        for (var i = t; i < params.quads; i += ${threads}u) {
          let quad = x[first + i];
          squares += dot(quad, quad);
        }
        let mean = workgroup_sum(t, squares) / f32(4u * params.quads);
        let scale = 1.0 / sqrt(mean + params.epsilon);`;
}

function spec(threads: number, accumulate: boolean): KernelSpec {
  return {
    bindings: [
      reads("x", "array<vec4<f32>>"),
      reads("weight", "array<vec4<f32>>"),
      writes("out", "array<vec4<f32>>"),
    ],
    params: [["rows", "u32"], ["quads", "u32"], ["epsilon", "f32"]],
    source: `
      ${sumOverWorkgroup(threads)}
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let row = ${GROUP_INDEX};
        if (row >= params.rows) { return; }
        let first = row * params.quads;
        ${normScaleWgsl(threads)}
        for (var i = t; i < params.quads; i += ${threads}u) {
          out[first + i] = ${accumulate ? "out[first + i] + " : ""}x[first + i] * scale * weight[i];
        }
      }`,
  };
}
