/**
 * Lossless decoding of several sequences of one context together: dense steps and rounds of all of them, and what rounds mean
 * for drafts of a given agreement. Knows steps; how one sequence fares is measured in `corrections.ts`.
 */

import { bestLossless, type LosslessFigures } from "./break_even.ts";
import type { Table } from "./correction_tables.ts";
import { type CorrectionOptions, type CycleFigures, measureRounds } from "./corrections.ts";
import type { MeasuredHost, MeasureOptions } from "./figures.ts";
import type { FilledSession, Filling } from "./fill.ts";
import { drawnRow, stepOf, timedSteps } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** So many sequences at one context. */
export interface TogetherFigures {
  readonly context: number;
  readonly sequences: number;
  /** Mean dense step, a row of each. */
  readonly denseMs: number;
  /** Of all sequences; a round gives each of them as many tokens as its drafts agree. */
  readonly rounds: readonly CycleFigures[];
  /** At each given agreement; milliseconds are those between two tokens of a sequence. */
  readonly lossless: readonly LosslessFigures[];
}

/** What to measure. */
export interface TogetherOptions
  extends Pick<CorrectionOptions, "agreements" | "cycles">, Pick<MeasureOptions, "tokens" | "untimed" | "readBackMs"> {
  readonly context: number;
  readonly sequences: number;
}

/** Measures so many sequences, each on pages of its own or in an order of its own. */
export async function measureTogether(
  { host, config }: MeasuredHost,
  filling: Filling,
  options: TogetherOptions,
): Promise<TogetherFigures> {
  const { context, sequences, agreements, cycles, tokens, untimed, readBackMs } = options;
  const filled: FilledSession[] = [];
  try {
    while (filled.length < sequences) filled.push(await filling.open(context, filled.length));
    const sessions = filled.map(({ session }) => session);
    const run = { count: untimed + tokens, first: sessions.map(() => 1) };
    const steps = await timedSteps(host, run, (i, drawn) =>
      stepOf(sessions, (place) => ({
        kind: "decode",
        attention: "dense",
        ...drawnRow(drawn, place),
        from: context + i,
        logits: "last",
      })));
    const rounds = await measureRounds({ host, sessions, config, context, readBackMs }, cycles);
    return {
      context,
      sequences,
      denseMs: mean(steps.slice(untimed).map(({ stepMs }) => stepMs)),
      rounds,
      lossless: agreements.map((agreement) => bestLossless(rounds, agreement)),
    };
  } finally {
    for (const { session } of filled) await session.close();
  }
}

/** One row for dense steps, and one for each agreement. */
export function togetherTable(
  measured: readonly { readonly workers: number; readonly together: readonly TogetherFigures[] }[],
): Table {
  return {
    columns: ["workers", "context", "sequences", "decoding", "ms/token of each", "tokens/s", "against dense"],
    rows: measured.flatMap(({ workers, together }) => together.flatMap((figures) => rowsOf(workers, figures))),
  };
}

function rowsOf(workers: number, { context, sequences, denseMs, lossless }: TogetherFigures): string[][] {
  const paces = [
    ["dense", denseMs] as const,
    ...lossless.map(({ agreement, stride, msPerToken }) =>
      [`lossless at agreement ${agreement}, stride ${stride}`, msPerToken] as const
    ),
  ];
  return paces.map(([decoding, ms]) => [
    ...[workers, context, sequences].map(String),
    decoding,
    ms.toFixed(2),
    (sequences * 1000 / ms).toFixed(1),
    decoding === "dense" ? "–" : `${(denseMs / ms).toFixed(2)} ×`,
  ]);
}
