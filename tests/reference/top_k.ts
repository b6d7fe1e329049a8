/** The best k positions, by sorting. */

/** Ascending positions of the k largest values; of equal values the lower position wins. */
export function bestPositions(values: ArrayLike<number>, k: number): number[] {
  const order = Array.from({ length: values.length }, (_, i) => i);
  order.sort((a, b) => (values[b] ?? NaN) - (values[a] ?? NaN) || a - b);
  return order.slice(0, k).sort((a, b) => a - b);
}
