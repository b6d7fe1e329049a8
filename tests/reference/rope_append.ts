/** Bias, per-head norm and rotation of one head, in plain f64 loops. */

/** `head` divided by its root mean square and weighted. */
export function rmsNorm(head: readonly number[], weight: ArrayLike<number>, eps: number): number[] {
  const mean = head.reduce((sum, x) => sum + x * x, 0) / head.length;
  return head.map((x, i) => (x / Math.sqrt(mean + eps)) * (weight[i] ?? NaN));
}

/** The first half of a head turned against the second half; `rotations` holds cosine and sine of each pair. */
export function rotate(head: readonly number[], rotations: ArrayLike<number>): number[] {
  const half = head.length / 2;
  return head.map((x, i) => {
    const pair = i % half;
    const partner = head[(i + half) % head.length] ?? NaN;
    const [cosine, sine] = [rotations[2 * pair] ?? NaN, rotations[2 * pair + 1] ?? NaN];
    return i < half ? x * cosine - partner * sine : x * cosine + partner * sine;
  });
}
