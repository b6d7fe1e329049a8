/**
 * What distinguishes variants of the split kernel, and the numbers that follow from it.
 * Knows sizes; the WGSL is in `split_kernel.ts` and its phases.
 */

import type { HeadShape, StateForm } from "../kv_pages.ts";

/** What distinguishes variants of the kernel. */
export interface SplitOptions extends HeadShape {
  /** KV rows of a split. */
  readonly splitRows: number;
  /** Query heads of one workgroup: those of a KV head or a share of them; 1 when each has its own set. */
  readonly headsTogether: number;
  /** Rows of one sequence that a workgroup computes together. More than 1 only in dense calls without scores. */
  readonly rowsTogether: number;
  /** Whether the rows of each workgroup are listed; else they are consecutive, one a workgroup. */
  readonly listed: boolean;
  /** Whether the kernel serves rows whose query heads have a set each, or all other rows. */
  readonly ownSets: boolean;
  readonly gathered: boolean;
  readonly scores: boolean;
  /** Threads of a workgroup; a power of two. */
  readonly threads: number;
  /** Most lanes that share one K row; 1 where a lane's reads are not merged with its neighbours' anyway. */
  readonly maxLanes: 1 | 4;
  /** Of the outputs of rows with a single split. */
  readonly outForm: StateForm;
}

/** K rows that a team has in flight. */
const ROWS_AT_ONCE = 4;
/** Rows that a thread looks at to find the largest score and the sum of a column's split. */
const SEGMENT_ROWS = 8;
/** Columns whose outputs are added up over teams at the same time: bounds workgroup memory. */
export const COLUMNS_ADDED_AT_ONCE = 4;
/** Scores whose parts meet in workgroup memory at the same time, for the same reason. */
const MEETING_SCORES = 1024;
/** Columns of a workgroup: their sums stay in registers. */
const MAX_COLUMNS = 16;
/**
 * Rows that variants compute together: the more columns use a K or V row, the less its reading and conversion weigh. Not
 * two: on an H100, 32 rows of the 8B shape over 32,768 KV rows take 2.03 ms by two, 1.68 ms alone and 1.44 ms by four.
 */
const ROWS_TOGETHER = [1, 4] as const;

/** Numbers that follow from the options. */
export interface Plan extends SplitOptions {
  /** One for each row and query head of a workgroup, row by row. */
  readonly columns: number;
  /** 16-byte pieces of a K or V row. */
  readonly pieces: number;
  /** Lanes that share a K row: a divisor of `pieces`. */
  readonly lanes: number;
  /** K rows of one turn of all teams. */
  readonly turnRows: number;
  /** Of those, rows of one team. */
  readonly rowsInFlight: number;
  /** Columns whose scores of one turn meet at the same time. */
  readonly columnsMeeting: number;
  /** Teams of `pieces` lanes that read V rows. */
  readonly valueTeams: number;
  /** Segments of a column: a thread each finds the largest score and the sum. */
  readonly segments: number;
  /** Whether a thread finds one row of a selection at most: then K and V are all read at once, before anything is computed. */
  readonly readsAtOnce: boolean;
}

/** Lanes and teams of a variant. No number that orders a row's sums depends on how many rows come along. */
export function planOf(options: SplitOptions): Plan {
  const columns = options.rowsTogether * options.headsTogether;
  const pieces = options.headDim / 8;
  let lanes: number = options.maxLanes;
  while (pieces % lanes !== 0) lanes /= 2;
  const { splitRows, threads, gathered } = options;
  const turnRows = Math.min(splitRows, (threads / lanes) * ROWS_AT_ONCE);
  const columnsMeeting = Math.min(columns, MEETING_SCORES / turnRows);
  return {
    ...options,
    columns,
    pieces,
    lanes,
    turnRows,
    rowsInFlight: Math.ceil(turnRows / (threads / lanes)),
    columnsMeeting,
    valueTeams: Math.floor(threads / pieces),
    segments: splitRows / SEGMENT_ROWS,
    readsAtOnce: gathered && splitRows <= threads,
  };
}

/** Vectors of 16 bytes, or words, that a workgroup keeps in its memory. */
export interface Memory {
  readonly query: number;
  readonly weights: number;
  readonly segments: number;
  /** Parts of scores, and later parts of outputs. */
  readonly meeting: number;
  /** Words. */
  readonly rowAt: number;
  /** Words: two for each column. */
  readonly columns: number;
}

/** What a workgroup of a variant keeps. */
export function memoryOf(
  { splitRows, columns, segments, pieces, lanes, turnRows, columnsMeeting, valueTeams }: Plan,
): Memory {
  const meeting = lanes > 1 ? turnRows * columnsMeeting : 0;
  const adding = valueTeams * pieces * 2 * Math.min(columns, COLUMNS_ADDED_AT_ONCE);
  return {
    query: columns * pieces * 2,
    weights: (columns * splitRows) / 4,
    segments: (columns * segments) / 4,
    meeting: Math.max(meeting, adding),
    rowAt: splitRows,
    columns,
  };
}

/** The rows of one sequence that a workgroup of these options computes together: at most `most`, and what memory holds. */
export function rowsTogetherOf(
  options: SplitOptions,
  { most, maxWorkgroupBytes }: { readonly most: number; readonly maxWorkgroupBytes: number },
): number {
  const fits = (rowsTogether: number) => {
    const plan = planOf({ ...options, rowsTogether });
    const { query, weights, segments, meeting, rowAt, columns } = memoryOf(plan);
    const bytes = 16 * (query + weights + segments + meeting) + 4 * (rowAt + 2 * columns);
    return rowsTogether <= most && plan.columns <= MAX_COLUMNS && bytes <= maxWorkgroupBytes;
  };
  return ROWS_TOGETHER.findLast(fits) ?? 1;
}
