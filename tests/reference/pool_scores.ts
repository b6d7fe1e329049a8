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

/** Values of a set made of the query heads [first, first + count), sinks and newest positions forced in. */
export function pooled(row: PooledRow, first: number, count: number): number[] {
  return Array.from({ length: row.kvLimit }, (_, j) => {
    if (j < row.kvFrom) return -1e30;
    if (j < 4 || j + row.recent >= row.kvLimit) return 1e30;
    let sum = 0;
    for (let head = first; head < first + count; head++) {
      sum += Math.exp((row.scores[head]?.[j] ?? NaN) - (row.lse[head] ?? NaN));
    }
    return sum / count;
  });
}
