/**
 * What tells one variant of the split kernel from another, and the numbers that follow from it.
 * Knows sizes; the WGSL is in `attention_split.ts` and its phases.
 */

import type { HeadShape } from "./kv_pages.ts";

/** KV rows of one split. */
export const SPLIT_ROWS = 256;

/** What tells one variant of the kernel from another. */
export interface SplitOptions extends HeadShape {
  /** Query heads of one workgroup: those of a KV head or a share of them; 1 when each has its own set. */
  readonly headsTogether: number;
  /** Whether the kernel serves rows whose query heads have a set each, or all other rows. */
  readonly ownSets: boolean;
  readonly gathered: boolean;
  readonly scores: boolean;
  /** Threads of a workgroup; a power of two. */
  readonly threads: number;
  /** Most lanes that share one K row; 1 where a lane's reads are not merged with its neighbours' anyway. */
  readonly maxLanes: 1 | 4;
}

/** K rows that a team has in flight. */
const ROWS_AT_ONCE = 4;
/** Threads that find the largest score and the sum of a head's split; each looks at 8 rows. */
export const SEGMENTS = SPLIT_ROWS / 8;
/** Heads whose outputs are added up over teams at the same time: bounds workgroup memory. */
export const HEADS_ADDED_AT_ONCE = 4;

/** Numbers that follow from the options. */
export interface Plan extends SplitOptions {
  /** 16-byte pieces of a K or V row. */
  readonly pieces: number;
  /** Lanes that share a K row: a divisor of `pieces`. */
  readonly lanes: number;
  /** K rows of one turn of all teams. */
  readonly turnRows: number;
  /** Teams of `pieces` lanes that read V rows. */
  readonly valueTeams: number;
}

/** Lanes and teams of a variant. */
export function planOf(options: SplitOptions): Plan {
  const pieces = options.headDim / 8;
  let lanes: number = options.maxLanes;
  while (pieces % lanes !== 0) lanes /= 2;
  const turnRows = Math.min(SPLIT_ROWS, (options.threads / lanes) * ROWS_AT_ONCE);
  return { ...options, pieces, lanes, turnRows, valueTeams: Math.floor(options.threads / pieces) };
}
