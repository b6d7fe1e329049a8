/** silu(gate) · up, or gelu(gate) · up, in plain f64 loops. */

import type { Activation } from "../../kernels/swiglu.ts";

/** By the formulas as published. */
export function activated(gate: number, activation: Activation): number {
  if (activation === "silu") return gate / (1 + Math.exp(-gate));
  return gate / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (gate + 0.044715 * gate ** 3)));
}

/** @param gateUp [rows, 2 · width], gate first */
export function swiglu(
  gateUp: ArrayLike<number>,
  width: number,
  activation: Activation = "silu",
): Float64Array {
  const out = new Float64Array(gateUp.length / 2);
  for (let i = 0; i < out.length; i++) {
    const at = Math.floor(i / width) * 2 * width + i % width;
    out[i] = activated(Number(gateUp[at]), activation) * Number(gateUp[at + width]);
  }
  return out;
}
