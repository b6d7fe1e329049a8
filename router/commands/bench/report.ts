/** The figures of `bench` as Markdown. Knows tables; measures nothing. */

import type { BatchFigures } from "./batches.ts";
import { correctionNotes, correctionTables, type Table } from "./correction_tables.ts";
import type { ExchangeFigures } from "./exchange.ts";
import type { ContextFigures } from "./figures.ts";
import { SHORT_TOKENS } from "./fill.ts";
import type { ProfileFigures } from "./profile.ts";
import { type PromptFigures, promptTable } from "./prompts.ts";
import { profileNotes, profileTables } from "./profile_tables.ts";
import { type TogetherFigures, togetherTable } from "./together.ts";
import { type ThroughputFigures, throughputTable } from "./throughput.ts";
import { markdownTable } from "../markdown_table.ts";

/** What was measured with one number of workers. */
export interface GroupFigures {
  readonly workers: readonly { readonly adapter: string; readonly kvTokens: number; readonly place: string | null }[];
  /** Of all workers together. */
  readonly kvTokens: number;
  /** Longest context that fits. */
  readonly longestContext: number;
  readonly figures: readonly ContextFigures[];
  /** Absent when none were asked for. */
  readonly batches?: readonly BatchFigures[];
  /** Absent when none were asked for. */
  readonly prompts?: readonly PromptFigures[];
  /** Absent when none were asked for. */
  readonly together?: readonly TogetherFigures[];
  /** Contexts and prompts that do not fit. */
  readonly skipped: readonly number[];
}

/** All that was measured; `--json` writes it as it is. */
export interface BenchResult {
  readonly date: string;
  readonly model: string;
  readonly parameters: number;
  readonly budget: number;
  readonly fill: "prefill" | "copied";
  readonly groups: readonly GroupFigures[];
  /** Absent when it was not asked for. */
  readonly profile?: ProfileFigures;
  /** Of several groups together; absent when it was not asked for. */
  readonly throughput?: readonly ThroughputFigures[];
}

const SPEED_COLUMNS = [
  "workers",
  "context",
  "prefill tokens/s",
  "first token ms",
  "attention",
  "decode tokens/s",
  "step ms",
  "GPU ms",
  "encode ms",
  "read-back ms",
  "wire ms",
  "exchange ms/layer",
];

const EXCHANGE_COLUMNS = [
  "workers",
  "context",
  "work",
  "exchange ms/layer",
  "read ms/layer",
  "rows ms/step",
  "candidates ms/step",
  "replicas ms/step",
  "queries B/token",
  "keys B/token",
  "states B/token",
  "rows B/token",
  "candidates B/token",
  "replicas B/token",
  "replicas missing",
];

const BATCH_COLUMNS = [
  "workers",
  "batch",
  "mean context",
  "attention",
  "tokens/s",
  "tokens/s each",
  "step ms",
  "GPU ms",
  "encode ms",
  "wire ms",
];

const FILLS = {
  prefill: "caches filled by prompts of the context's length",
  copied: `caches filled with the pages of many prompts of up to ${SHORT_TOKENS} tokens, so prefill is not measured`,
} as const;

/**
 * Lines for people.
 * @param compared with an earlier run @default none
 */
export function report(
  result: BenchResult,
  compared?: { readonly table: Table; readonly notes: readonly string[] },
): readonly string[] {
  const { date, model, parameters, budget, fill, groups, profile, throughput = [] } = result;
  const millions = (parameters / 1e6).toFixed(1);
  const measured = groups.flatMap(({ workers, figures }) =>
    figures.map((context) => ({ workers: workers.length, ...context }))
  );
  const tables = [
    { columns: SPEED_COLUMNS, rows: measured.flatMap(speedRowsOf) },
    promptTable(groups.map(({ workers, prompts = [] }) => ({ workers: workers.length, prompts }))),
    { columns: EXCHANGE_COLUMNS, rows: measured.flatMap(exchangeRowsOf) },
    { columns: BATCH_COLUMNS, rows: groups.flatMap(batchRows) },
    throughputTable(throughput),
    ...correctionTables(measured),
    togetherTable(groups.map(({ workers, together = [] }) => ({ workers: workers.length, together }))),
    ...(profile === undefined ? [] : profileTables(profile)),
    ...(compared === undefined ? [] : [compared.table]),
  ];
  return [
    `${model}, ${millions} M parameters, ${date}; sparse budget ${budget}; one sequence unless said; ${FILLS[fill]}`,
    "",
    ...groups.flatMap(aboutGroup),
    ...tables.filter(({ rows }) => rows.length > 0).flatMap((
      { columns, rows },
    ) => ["", ...markdownTable(columns, rows)]),
    ...correctionNotes(measured),
    ...(profile === undefined ? [] : profileNotes(profile)),
    ...(compared?.notes ?? []),
  ];
}

function aboutGroup({ workers, kvTokens, longestContext, skipped }: GroupFigures): readonly string[] {
  const names = workers.map(({ adapter, place, kvTokens: own }) =>
    `${adapter}${place === null ? "" : `, ${place}`} (${own} KV tokens)`
  );
  const note = skipped.length === 0 ? "" : `; not measured, as they do not fit: ${skipped.join(", ")}`;
  return [
    `* ${workers.length} worker${workers.length === 1 ? "" : "s"}: ${names.join(" · ")}; ` +
    `${kvTokens} KV tokens in all, the longest context that fits ${longestContext}${note}`,
  ];
}

function batchRows({ workers, batches = [] }: GroupFigures): readonly (readonly string[])[] {
  return batches.map(({ batch, meanContext, attention, tokensPerSecond, ms }) => [
    ...[workers.length, batch].map(String),
    meanContext.toFixed(0),
    attention,
    ...[tokensPerSecond, tokensPerSecond / batch].map((value) => value.toFixed(1)),
    ...[ms.step, ms.gpu, ms.encode, ms.wire].map((value) => value.toFixed(2)),
  ]);
}

type Measured = ContextFigures & { readonly workers: number };

function speedRowsOf({ workers, context, prefill, decode }: Measured): readonly (readonly string[])[] {
  return decode.map(({ attention, tokensPerSecond, ms, exchange }) => [
    ...[workers, context].map(String),
    ...[prefill?.tokensPerSecond, prefill?.firstTokenMs].map((value) => value?.toFixed(0) ?? "–"),
    attention,
    tokensPerSecond.toFixed(1),
    ...[ms.step, ms.gpu, ms.encode, ms.readBack, ms.wire].map((value) => value.toFixed(2)),
    exchange?.msPerLayer.toFixed(3) ?? "–",
  ]);
}

function exchangeRowsOf({ workers, context, prefill, decode }: Measured): readonly (readonly string[])[] {
  const works: readonly (readonly [string, ExchangeFigures | undefined])[] = [
    ["prefill", prefill?.exchange],
    ...decode.map(({ attention, exchange }) => [attention, exchange] as const),
  ];
  return works.flatMap(([work, exchange]) => {
    if (exchange === undefined) return [];
    const { msPerLayer, readMsPerLayer, ms, bytesPerToken: bytes, missing } = exchange;
    return [[
      ...[`${workers}`, `${context}`, work],
      ...[msPerLayer, readMsPerLayer, ms.rows, ms.candidates, ms.replicas].map((value) => value.toFixed(3)),
      ...[bytes.queries, bytes.keys, bytes.states, bytes.rows, bytes.candidates, bytes.replicas]
        .map((value) => value.toFixed(0)),
      missing === undefined ? "–" : `${(100 * missing).toFixed(1)} %`,
    ]];
  });
}

/** What was measured at one context, in a line: before the tables are there. */
export function speedLine({ context, prefill, decode, corrections }: ContextFigures): string {
  const parts = decode.map(({ attention, ms }) => `${attention} step ${ms.step.toFixed(2)} ms`);
  if (prefill !== undefined) parts.unshift(`prompt ${prefill.tokensPerSecond.toFixed(0)} tokens/s`);
  for (const { stride, correction } of corrections?.refresh ?? []) {
    parts.push(`correction of ${stride} rows ${correction.step.toFixed(2)} ms`);
  }
  return `context ${context}: ${parts.join(", ")}`;
}
