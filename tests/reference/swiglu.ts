/** silu(gate) · up in plain f64 loops. */

/** @param gateUp [rows, 2 · width], gate first */
export function swiglu(gateUp: ArrayLike<number>, width: number): Float64Array {
  const out = new Float64Array(gateUp.length / 2);
  for (let i = 0; i < out.length; i++) {
    const at = Math.floor(i / width) * 2 * width + i % width;
    const gate = Number(gateUp[at]);
    out[i] = gate / (1 + Math.exp(-gate)) * Number(gateUp[at + width]);
  }
  return out;
}
