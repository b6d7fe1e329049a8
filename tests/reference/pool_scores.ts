/** The values that positions compete with, in plain f64 loops. */

/** What one row's pooling looks at. */
export interface PooledRow {
  /** Raw scores `[heads][kvLimit]`. */
  readonly scores: readonly ArrayLike<number>[];
  readonly lse: readonly number[];
  readonly kvFrom: number;
  readonly kvLimit: number;
  readonly recent: number;
}

/** How far above their probability the values of forced positions lie, and where they start. */
const [FORCED_SCALE, FORCED_LEAST] = [2 ** 64, 2 ** 24];

/** Values of a set made of the query heads [first, first + count); those of sinks and newest positions are forced. */
export function pooled(row: PooledRow, first: number, count: number): number[] {
  return Array.from({ length: row.kvLimit }, (_, j) => {
    if (j < row.kvFrom) return -1e30;
    let sum = 0;
    for (let head = first; head < first + count; head++) {
      sum += Math.exp((row.scores[head]?.[j] ?? NaN) - (row.lse[head] ?? NaN));
    }
    const forced = j < 4 || j + row.recent >= row.kvLimit;
    return forced ? Math.max(sum / count * FORCED_SCALE, FORCED_LEAST) : sum / count;
  });
}
