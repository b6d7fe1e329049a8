/** x / √(mean(x²) + ε) · weight in plain f64 loops. */

/** @returns f64 [rows, weight.length] */
export function rmsNorm(x: ArrayLike<number>, weight: ArrayLike<number>, epsilon: number): Float64Array {
  const cols = weight.length;
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += cols) {
    let squares = 0;
    for (let i = 0; i < cols; i++) squares += Number(x[first + i]) ** 2;
    const scale = 1 / Math.sqrt(squares / cols + epsilon);
    for (let i = 0; i < cols; i++) out[first + i] = Number(x[first + i]) * scale * Number(weight[i]);
  }
  return out;
}
