/**
 * Root-mean-square normalisation of some columns of rows, in place: all query heads, or all key heads, of a fused product.
 * Knows one row at a time.
 */

import { GpuError } from "./errors.ts";
import type { Commands, KernelSpec } from "./pipeline.ts";
import { eachQuad, type NormCut, normCut, normNeeds, normScaleWgsl, normSumWgsl } from "./rms_norm.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "./wgsl.ts";

/** Operands of a normalisation. */
export interface NormColumns {
  /** f32 [rows, width], changed */
  readonly x: Tensor;
  readonly rows: number;
  readonly width: number;
  /** First column, and how many there are; multiples of 4, as `width`. */
  readonly from: number;
  readonly cols: number;
  /** f32 [cols] */
  readonly weight: Tensor;
  readonly epsilon: number;
}

/**
 * Computes x = x / √(mean(x²) + ε) · weight over the columns of each row; the others stay as they are.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit or a number of columns is not a multiple of 4
 */
export function normColumns(commands: Commands, { x, rows, width, from, cols, weight, epsilon }: NormColumns): void {
  if (width % 4 !== 0 || from % 4 !== 0 || cols % 4 !== 0 || from + cols > width) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch norm_columns: columns ${from} + ${cols} of ${width} must lie within, at multiples of 4`,
    );
  }
  expectTensor("norm_columns", x, "f32", [rows, width]);
  expectTensor("norm_columns", weight, "f32", [cols]);
  const cut = normCut(commands.gpu.info, cols);
  commands.dispatch(commands.kernel(`norm_columns ${Object.values(cut)}`, () => spec(cut)), {
    tensors: [x, weight],
    params: { rows, stride: width / 4, first: from / 4, epsilon },
    groups: spread(rows),
  });
}

function spec(cut: NormCut): KernelSpec {
  return {
    ...normNeeds(cut),
    bindings: [writes("x", "array<vec4<f32>>"), reads("weight", "array<vec4<f32>>")],
    params: [["rows", "u32"], ["stride", "u32"], ["first", "u32"], ["epsilon", "f32"]],
    source: `
      ${normSumWgsl(cut)}
      @compute @workgroup_size(${cut.threads}) fn main(${BUILTINS}) {
        let row = ${GROUP_INDEX};
        if (row >= params.rows) { return; }
        let first = row * params.stride + params.first;
        ${normScaleWgsl(cut)}
        ${eachQuad(cut, (round, at) => `x[first + ${at}] = quad${round} * scale * weight[${at}];`)}
      }`,
  };
}
