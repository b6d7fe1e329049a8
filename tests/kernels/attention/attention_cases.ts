/**
 * The cases of attention: tests of correctness run over all of them. Tolerances stand beside them with their reason.
 */

import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { RowRange } from "../../../kernels/attention/row_blocks.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import { tableRow } from "../../support/kv_fixture.ts";

/** One call of an attention kernel. */
export interface AttentionCase {
  readonly name: string;
  readonly shape: HeadShape;
  readonly rows: readonly TableRow[];
  /** Which rows follow each other in one sequence. @default none */
  readonly blocks?: readonly RowRange[];
  readonly nmse: number;
}

/** Contexts that the kernel bench times; those for everywhere are checked by plain loops too. */
export const TIMED_CONTEXTS: readonly TimedContext[] = [
  { model: "tide", shape: { heads: 4, kvHeads: 2, headDim: 64 }, kvRows: 4096, timed: "everywhere" },
  { model: "tide", shape: { heads: 4, kvHeads: 2, headDim: 64 }, kvRows: 16_384, timed: "on GPUs" },
  ...[1024, 10_048, 32_768, 98_304].map((kvRows): TimedContext => ({
    model: "llama-3-8b",
    shape: { heads: 32, kvHeads: 8, headDim: 128 },
    kvRows,
    timed: "on GPUs",
  })),
];

/** A long context; `on GPUs`: a software adapter would take minutes. */
export interface TimedContext {
  readonly model: string;
  readonly shape: HeadShape;
  /** A multiple of the rows of a page. */
  readonly kvRows: number;
  readonly timed: "everywhere" | "on GPUs";
}

/** K and V are f16 on both sides; what differs is f32 summation. */
export const F32_SUMS = 1e-10;

function limits(...kvLimits: readonly number[]): TableRow[] {
  return kvLimits.map((kvLimit) => tableRow({ kvLimit }));
}

/** Rows of decode: each its own length, window and sequence. */
export const ATTENTION_CASES: readonly AttentionCase[] = [
  { name: "one row, one position", shape: { heads: 4, kvHeads: 2, headDim: 64 }, rows: limits(1), nmse: F32_SUMS },
  {
    name: "an empty slice beside a full one",
    shape: { heads: 4, kvHeads: 2, headDim: 64 },
    rows: limits(0, 70, 0),
    nmse: F32_SUMS,
  },
  {
    name: "G = 2, lengths across pages and splits",
    shape: { heads: 4, kvHeads: 2, headDim: 64 },
    rows: [63, 64, 65, 255, 256, 257, 511, 513, 1025].map((kvLimit, i) => tableRow({ kvLimit, sequenceSlot: i % 3 })),
    nmse: F32_SUMS,
  },
  { name: "G = 1, headDim 16", shape: { heads: 3, kvHeads: 3, headDim: 16 }, rows: limits(5, 300), nmse: F32_SUMS },
  { name: "G = 1, headDim 128", shape: { heads: 2, kvHeads: 2, headDim: 128 }, rows: limits(517), nmse: F32_SUMS },
  { name: "G = 4, headDim 32", shape: { heads: 4, kvHeads: 1, headDim: 32 }, rows: limits(77, 600), nmse: F32_SUMS },
  { name: "G = 4, headDim 128", shape: { heads: 8, kvHeads: 2, headDim: 128 }, rows: limits(12, 1300), nmse: F32_SUMS },
  {
    name: "G = 16 in two workgroups",
    shape: { heads: 16, kvHeads: 1, headDim: 16 },
    rows: limits(40, 300),
    nmse: F32_SUMS,
  },
  { name: "G = 7, headDim 128", shape: { heads: 7, kvHeads: 1, headDim: 128 }, rows: limits(259), nmse: F32_SUMS },
  { name: "G = 4, headDim 256", shape: { heads: 4, kvHeads: 1, headDim: 256 }, rows: limits(3, 300), nmse: F32_SUMS },
  {
    name: "G = 16 in four workgroups, headDim 256",
    shape: { heads: 16, kvHeads: 1, headDim: 256 },
    rows: limits(70),
    nmse: F32_SUMS,
  },
  {
    name: "G = 2, headDim 24, an odd number of pieces",
    shape: { heads: 2, kvHeads: 1, headDim: 24 },
    rows: limits(130),
    nmse: F32_SUMS,
  },
  {
    name: "sliding windows that start and end inside splits",
    shape: { heads: 4, kvHeads: 2, headDim: 16 },
    rows: [[0, 48], [1, 49], [200, 300], [255, 512], [600, 601], [601, 601]].map(([kvFrom = 0, kvLimit = 0]) =>
      tableRow({ kvFrom, kvLimit })
    ),
    nmse: F32_SUMS,
  },
  {
    name: "blocks between single rows",
    shape: { heads: 4, kvHeads: 2, headDim: 64 },
    rows: [
      ...limits(77),
      ...consecutiveRows({ from: 252, rows: 7 }),
      ...limits(1),
      ...consecutiveRows({ from: 510, rows: 3 }),
    ],
    blocks: [{ first: 1, rows: 7 }, { first: 9, rows: 3 }],
    nmse: F32_SUMS,
  },
  {
    name: "G = 4, headDim 128, a span in a sliding window",
    shape: { heads: 8, kvHeads: 2, headDim: 128 },
    rows: consecutiveRows({ from: 505, rows: 6, window: 250 }),
    blocks: [{ first: 0, rows: 6 }],
    nmse: F32_SUMS,
  },
  ...TIMED_CONTEXTS.filter(({ timed }) => timed === "everywhere").map(({ model, shape, kvRows }): AttentionCase => ({
    name: `${model}, ${kvRows} KV rows`,
    shape,
    rows: limits(kvRows),
    nmse: F32_SUMS,
  })),
];

/** Consecutive rows of one sequence, from a position on, each seeing itself and what lies before it (in the window). */
export function consecutiveRows(
  { from, rows, window }: { readonly from: number; readonly rows: number; readonly window?: number | undefined },
): TableRow[] {
  return Array.from({ length: rows }, (_, i) => {
    const kvLimit = from + i + 1;
    return tableRow({ sequenceSlot: 1, kvLimit, kvFrom: window === undefined ? 0 : Math.max(0, kvLimit - window) });
  });
}

/** Rows of prefill: one span each. */
export const PREFILL_CASES: readonly AttentionCase[] = [
  { name: "no rows", shape: { heads: 4, kvHeads: 2, headDim: 64 }, rows: [], nmse: F32_SUMS },
  { name: "one row, one position", shape: { heads: 4, kvHeads: 2, headDim: 64 }, rows: limits(1), nmse: F32_SUMS },
  {
    name: "rows that see nothing",
    shape: { heads: 4, kvHeads: 2, headDim: 64 },
    rows: limits(0, 0, 1),
    nmse: F32_SUMS,
  },
  {
    name: "G = 2, a chunk behind others",
    shape: { heads: 4, kvHeads: 2, headDim: 64 },
    rows: consecutiveRows({ from: 250, rows: 71 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 1, headDim 16",
    shape: { heads: 2, kvHeads: 2, headDim: 16 },
    rows: consecutiveRows({ from: 0, rows: 65 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 4, headDim 32",
    shape: { heads: 4, kvHeads: 1, headDim: 32 },
    rows: consecutiveRows({ from: 60, rows: 20 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 4, headDim 128",
    shape: { heads: 8, kvHeads: 2, headDim: 128 },
    rows: consecutiveRows({ from: 129, rows: 19 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 7, headDim 128",
    shape: { heads: 7, kvHeads: 1, headDim: 128 },
    rows: consecutiveRows({ from: 0, rows: 33 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 4, headDim 256",
    shape: { heads: 4, kvHeads: 1, headDim: 256 },
    rows: consecutiveRows({ from: 30, rows: 11 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 16, headDim 160, a sliding window",
    shape: { heads: 16, kvHeads: 1, headDim: 160 },
    rows: consecutiveRows({ from: 60, rows: 5, window: 40 }),
    nmse: F32_SUMS,
  },
  {
    name: "G = 2, headDim 24",
    shape: { heads: 2, kvHeads: 1, headDim: 24 },
    rows: consecutiveRows({ from: 3, rows: 40 }),
    nmse: F32_SUMS,
  },
  {
    name: "a sliding window",
    shape: { heads: 4, kvHeads: 2, headDim: 16 },
    rows: consecutiveRows({ from: 30, rows: 90, window: 48 }),
    nmse: F32_SUMS,
  },
];
