/** The best k positions, by sorting. */

/** Ascending positions of the k largest values; of equal values the lower position wins. */
export function bestPositions(values: ArrayLike<number>, k: number): number[] {
  const order = Array.from({ length: values.length }, (_, i) => i);
  order.sort((a, b) => (values[b] ?? NaN) - (values[a] ?? NaN) || a - b);
  return order.slice(0, k).sort((a, b) => a - b);
}

/** What an adaptive set must have. */
export interface CoverageGoal {
  readonly cap: number;
  readonly floor: number;
  /** Share of the attention. */
  readonly coverage: number;
}

/** What all attention of a row weighs. */
const ONE = 2n ** 29n;

/**
 * Ascending positions of an adaptive set, by sorting and adding: the best one after the other, until there are `floor` of
 * them that weigh enough, or `cap`. Values below zero are of positions that the row does not see.
 */
export function coveringPositions(values: ArrayLike<number>, { cap, floor, coverage }: CoverageGoal): number[] {
  const order = Array.from({ length: values.length }, (_, i) => i).filter((i) => (values[i] ?? NaN) >= 0);
  order.sort((a, b) => (values[b] ?? NaN) - (values[a] ?? NaN) || a - b);
  const chosen: number[] = [];
  let mass = 0n;
  for (const position of order) {
    const covered = coverage < 1 && mass >= BigInt(Math.ceil(coverage * Number(ONE)));
    if (chosen.length === cap || (covered && chosen.length >= floor)) break;
    const value = values[position] ?? NaN;
    const probability = Math.min(value >= 2 ** 24 ? value / 2 ** 64 : value, 1);
    // Exact: scaling by a power of two loses no bit.
    mass += BigInt(Math.floor(probability * Number(ONE)));
    chosen.push(position);
  }
  return chosen.sort((a, b) => a - b);
}
