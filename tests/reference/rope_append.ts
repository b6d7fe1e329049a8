/** The rotation of one head, in plain f64 loops. */

/** The first half of a head turned against the second half; `rotations` holds cosine and sine of each pair. */
export function rotate(head: ArrayLike<number>, rotations: ArrayLike<number>): number[] {
  const half = head.length / 2;
  return Array.from(head, (x, i) => {
    const pair = i % half;
    const partner = head[(i + half) % head.length] ?? NaN;
    const [cosine, sine] = [rotations[2 * pair] ?? NaN, rotations[2 * pair + 1] ?? NaN];
    return i < half ? x * cosine - partner * sine : x * cosine + partner * sine;
  });
}
