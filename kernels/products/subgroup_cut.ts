/**
 * What orders the additions of a row of a product with quantised weights, however many rows come along. A row's groups of 32 are dealt
 * to chains in turn, group g to chain g mod `chains`; a chain is a sum of fused multiply-adds in ascending k. Chains that follow one
 * another make a range, added in their order, and so are the ranges.
 */

/** It follows from the adapter and the weight's shape. */
export interface SubgroupCut {
  readonly subgroupSize: number;
  /** Subgroups that share the groups of a row where each lane has a chain. */
  readonly shares: number;
}

/** Ranges of chains. */
export const RANGES = 4;

/** Chains of a row. */
export function chainsOf({ subgroupSize, shares }: SubgroupCut): number {
  return subgroupSize * shares;
}
