/** Attention of one query head to a list of K and V rows, in plain f64 loops. */

/** A state over some rows: output and natural log-sum-exp; −1e30 over none. */
export interface State {
  readonly o: Float64Array;
  readonly lse: number;
}

/** The log-sum-exp over no rows, as f32 holds it. */
export const EMPTY = Math.fround(-1e30);

/** Raw scaled scores of `q` against `k` `[rows, dim]`. */
export function scoresOf(q: ArrayLike<number>, k: readonly ArrayLike<number>[], scale: number): number[] {
  return k.map((row) => {
    let dot = 0;
    for (let d = 0; d < q.length; d++) dot += (q[d] ?? NaN) * (row[d] ?? NaN);
    return dot * scale;
  });
}

/** softmax(scores) · v. */
export function attend(scores: readonly number[], v: readonly ArrayLike<number>[], headDim: number): State {
  const o = new Float64Array(headDim);
  if (scores.length === 0) return { o, lse: EMPTY };
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  let mass = 0;
  scores.forEach((score, row) => {
    const weight = Math.exp(score - top);
    mass += weight;
    for (let d = 0; d < headDim; d++) o[d] = (o[d] ?? NaN) + weight * (v[row]?.[d] ?? NaN);
  });
  return { o: o.map((value) => value / mass), lse: top + Math.log(mass) };
}
