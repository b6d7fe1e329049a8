/** y = x · Wᵀ in plain f64 loops. */

/** @returns f64 [rows, weightRows] */
export function product(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  { rows, weightRows, cols }: { rows: number; weightRows: number; cols: number },
): Float64Array {
  const y = new Float64Array(rows * weightRows);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < weightRows; n++) {
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += Number(x[m * cols + k]) * Number(weight[n * cols + k]);
      y[m * weightRows + n] = sum;
    }
  }
  return y;
}
