/**
 * The gate of the MLP: silu(gate) · up. Knows rows in which the gate lies before the up half.
 */

import { GpuError } from "./errors.ts";
import type { Commands, KernelSpec } from "./pipeline.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "./wgsl.ts";

/** Operands of the gate. */
export interface Swiglu {
  /** f32 [rows, 2 · width]: gate, then up */
  readonly gateUp: Tensor;
  /** f32 [rows, width] */
  readonly out: Tensor;
  readonly rows: number;
  /** A multiple of 4. */
  readonly width: number;
}

const THREADS = 64;

/**
 * Computes out = gate / (1 + e^−gate) · up.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit or `width` is not a multiple of 4
 */
export function swiglu(commands: Commands, { gateUp, out, rows, width }: Swiglu): void {
  if (width % 4 !== 0) {
    throw new GpuError("invalid_shape", `Cannot dispatch swiglu: width ${width} is not a multiple of 4`);
  }
  expectTensor("swiglu", gateUp, "f32", [rows, 2 * width]);
  expectTensor("swiglu", out, "f32", [rows, width]);
  commands.dispatch(commands.kernel("swiglu", spec), {
    tensors: [gateUp, out],
    params: { count: rows * width / 4, quads: width / 4 },
    groups: spread(Math.ceil(rows * width / 4 / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("gate_up", "array<vec4<f32>>"), writes("out", "array<vec4<f32>>")],
    params: [["count", "u32"], ["quads", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.count) { return; }
        let row = i / params.quads;
        let gate = gate_up[i + row * params.quads];
        let up = gate_up[i + (row + 1u) * params.quads];
        // Bounded: e^88 is where f32 ends, and WGSL may assume no infinities.
        let swish = gate / (1.0 + exp(min(-gate, vec4<f32>(80.0))));
        out[i] = swish * up;
      }`,
  };
}
