/**
 * Token ids to rows of the embedding. Knows a weight and ids that lie on the GPU, where sampling left them.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import type { Weight } from "../weights/weight.ts";
import type { WeightDType } from "../weights/format.ts";
import { readEight, weightType } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** Operands of an embedding. */
export interface Embed {
  /** [vocabulary, hidden] */
  readonly weight: Weight;
  /** u32 [rows]; each below the vocabulary's size: the row of another one stays as it was */
  readonly tokens: Tensor;
  /** f32 [rows, hidden] */
  readonly out: Tensor;
  readonly rows: number;
  /** Of every value. @default 1 */
  readonly scale?: number;
}

const THREADS = 32;

/**
 * Writes the embedding row of every token.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function embed(commands: Commands, { weight, tokens, out, rows, scale = 1 }: Embed): void {
  expectTensor("embed", tokens, "u32", [rows]);
  expectTensor("embed", out, "f32", [rows, weight.cols]);
  for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
    commands.dispatch(commands.kernel(`embed ${dtype}`, () => spec(dtype)), {
      tensors: [tensor, tokens, out],
      params: { rows, firstRow, partRows, eights: weight.cols / 8, scale },
      groups: spread(rows),
    });
  }
}

function spec(dtype: WeightDType): KernelSpec {
  return {
    bindings: [reads("w", weightType(dtype)), reads("tokens", "array<u32>"), writes("out", "array<vec4<f32>>")],
    params: [["rows", "u32"], ["firstRow", "u32"], ["partRows", "u32"], ["eights", "u32"], ["scale", "f32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let row = ${GROUP_INDEX};
        if (row >= params.rows) { return; }
        // Below the part's first row the difference wraps around, beyond its end.
        let local_row = tokens[row] - params.firstRow;
        if (local_row >= params.partRows) { return; }
        for (var k = t; k < params.eights; k += ${THREADS}u) {
          ${readEight(dtype, "w", { into: "h", index: "local_row * params.eights + k" })}
          out[2u * (row * params.eights + k)] = h_lo * params.scale;
          out[2u * (row * params.eights + k) + 1u] = h_hi * params.scale;
        }
      }`,
  };
}
