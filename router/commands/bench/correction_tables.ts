/** What `bench` shows of corrections: rows of tables, and how to read them. Knows figures; measures nothing. */

import { expectedTokens } from "../../scheduling/round_stride.ts";
import type { CorrectionFigures } from "./corrections.ts";
import type { ContextFigures } from "./figures.ts";

/** One table. */
export interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** A context whose sparse rows were corrected, and the number of workers. */
type Corrected = ContextFigures & { readonly workers: number; readonly corrections: CorrectionFigures };

const PACE_COLUMNS = ["workers", "context", "decoding", "ms/token", "tokens/s", "against dense"];

const CORRECTION_COLUMNS = [
  "workers",
  "context",
  "work",
  "rows",
  "ms",
  "ms/row",
  "GPU ms",
  "encode ms",
  "GFLOP",
  "TFLOP/s",
];

/** Paces against dense decoding, single corrections, and the rounds behind the lossless paces; any may be empty. */
export function correctionTables(measured: readonly (ContextFigures & { readonly workers: number })[]): Table[] {
  const corrected = measured.flatMap(correctedOnly);
  const agreements = corrected[0]?.corrections.lossless.map(({ agreement }) => agreement) ?? [];
  const roundColumns = ["workers", "context", "stride", "round ms", ...agreements.map((a) => `ms/token at ${a}`)];
  return [
    { columns: PACE_COLUMNS, rows: corrected.flatMap(paceRows) },
    { columns: CORRECTION_COLUMNS, rows: corrected.flatMap(correctionRows) },
    { columns: roundColumns, rows: corrected.flatMap((context) => roundRows(context, agreements)) },
  ];
}

/** How each figure came about, and from which stride on refreshing pays. */
export function correctionNotes(measured: readonly (ContextFigures & { readonly workers: number })[]): string[] {
  const corrected = measured.flatMap(correctedOnly);
  const [first] = corrected;
  if (first === undefined) return [];
  const { refresh, rounds } = first.corrections;
  const cycles = Math.min(...[...refresh, ...rounds].map((figures) => figures.cycles));
  return [
    "",
    ...(refresh.length === 0 ? [] : corrected.map(breakEven)),
    `* ms/token is a mean of whole steps, over ${cycles} or more cycles where there are corrections, short ones ` +
    "more (one before them is not timed); all other times are medians. Every cycle starts at the context.",
    ...(refresh.length === 0 ? [] : [
      "* Refresh every N: N − 1 sparse steps, then one dense span over their rows and the newest token; N tokens.",
    ]),
    ...(rounds.length === 0 ? [] : [
      "* Lossless at stride s: s − 1 sparse drafts, then one dense span of s rows that verifies them. The agreement a is " +
      "given, not measured here (random weights draft arbitrarily): a measured round is divided by the tokens that it " +
      "is expected to release when each draft agrees with probability a, (1 − a^s) / (1 − a). The best measured stride " +
      "is shown.",
    ]),
    "* GFLOP: 2 × weights in matrix products × rows (the head only for rows with logits) + 4 × visited KV rows × heads × " +
    "head dimension × layers, counted once however many workers; TFLOP/s over the whole step.",
  ];
}

function correctedOnly(context: ContextFigures & { readonly workers: number }): Corrected[] {
  const { corrections } = context;
  return corrections === undefined ? [] : [{ ...context, corrections }];
}

function paceRows({ workers, context, decode, corrections }: Corrected): string[][] {
  const { refresh, lossless } = corrections;
  const paces = [
    ...decode.map(({ attention, meanMs }) => [attention, meanMs] as const),
    ...refresh.map(({ stride, msPerToken }) => [`sparse, refresh every ${stride}`, msPerToken] as const),
    ...lossless.map(({ agreement, stride, msPerToken }) =>
      [`lossless at agreement ${agreement}, stride ${stride}`, msPerToken] as const
    ),
  ];
  const dense = decode.find(({ attention }) => attention === "dense")?.meanMs ?? NaN;
  return paces.map(([name, ms]) => [
    ...[workers, context].map(String),
    name,
    ms.toFixed(2),
    (1000 / ms).toFixed(1),
    name === "dense" ? "–" : comparison(dense / ms),
  ]);
}

/** @param factor above 1: faster */
function comparison(factor: number): string {
  return factor >= 1 ? `${factor.toFixed(2)} × faster` : `${(1 / factor).toFixed(2)} × slower`;
}

function correctionRows({ workers, context, corrections: { refresh, rounds } }: Corrected): string[][] {
  const works = [
    ...refresh.map((figures) => ({ work: "refresh", ...figures })),
    ...rounds.map((figures) => ({ work: "verification", ...figures })),
  ];
  return works.map(({ work, stride, correction, flop, teraflopPerSecond }) => [
    ...[workers, context].map(String),
    work,
    `${stride}`,
    ...[correction.step, correction.step / stride].map((ms) => ms.toFixed(2)),
    ...[correction.gpu, correction.encode].map((ms) => ms.toFixed(2)),
    ...[flop / 1e9, teraflopPerSecond].map((value) => `${Number(value.toPrecision(3))}`),
  ]);
}

function roundRows({ workers, context, corrections }: Corrected, agreements: readonly number[]): string[][] {
  return corrections.rounds.map(({ stride, cycleMs }) => [
    ...[workers, context, stride].map(String),
    cycleMs.toFixed(2),
    ...agreements.map((agreement) => (cycleMs / expectedTokens(stride, agreement)).toFixed(2)),
  ]);
}

function breakEven({ workers, context, corrections: { refresh, refreshBeatsDenseFrom: from } }: Corrected): string {
  const strides = refresh.map(({ stride }) => stride).join(", ");
  const where = `${workers} worker${workers === 1 ? "" : "s"}, context ${context}`;
  return from === null
    ? `* ${where}: refresh is not faster than dense at the longest stride measured (of ${strides})`
    : `* ${where}: refresh is faster than dense from stride ${from} on (of ${strides})`;
}
