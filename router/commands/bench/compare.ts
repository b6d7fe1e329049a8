/**
 * What a run measured as a flat list of named figures, and an earlier run's beside it. Knows files and ratios; measures
 * nothing.
 */

import { messageOf } from "../../../kernels/errors.ts";
import { UsageError } from "../../errors.ts";
import type { Table } from "./correction_tables.ts";
import type { BenchResult } from "./report.ts";

/** One measured number. */
export interface NamedFigure {
  /** What was measured, unit included; the same in every run that measures it. */
  readonly name: string;
  readonly value: number;
}

/** A file that `--json` wrote. */
export interface BenchFile extends BenchResult {
  /** Of this format; a file of another one is refused. */
  readonly version: typeof VERSION;
  readonly named: readonly NamedFigure[];
}

const VERSION = 1;

/** Gives a result its flat list. */
export function benchFile(result: BenchResult): BenchFile {
  return { version: VERSION, ...result, named: namedFigures(result) };
}

/** Every speed of a result; ratios of an earlier run are of these. */
function namedFigures({ groups, profile }: BenchResult): NamedFigure[] {
  return [
    ...groups.flatMap(({ workers, figures, prompts = [], batches = [] }) => {
      const at = `${workers.length} worker${workers.length === 1 ? "" : "s"}`;
      return [
        ...figures.flatMap(({ context, prefill, decode, corrections }) => [
          ...(prefill === undefined ? [] : [named(`${at}, ${context}: prefill tokens/s`, prefill.tokensPerSecond)]),
          ...decode.map((one) => named(`${at}, ${context}: decode ${one.attention} tokens/s`, one.tokensPerSecond)),
          ...(corrections?.refresh ?? []).map(({ stride, msPerToken }) =>
            named(`${at}, ${context}: refresh every ${stride} tokens/s`, 1000 / msPerToken)
          ),
          ...(corrections?.lossless ?? []).map(({ agreement, msPerToken }) =>
            named(`${at}, ${context}: lossless at ${agreement} tokens/s`, 1000 / msPerToken)
          ),
        ]),
        ...prompts.map((prompt) => named(`${at}, ${prompt.context}: prefill tokens/s`, prompt.tokensPerSecond)),
        ...batches.map(({ batch, attention, tokensPerSecond }) =>
          named(`${at}, batch of ${batch}: decode ${attention} tokens/s`, tokensPerSecond)
        ),
      ];
    }),
    ...(profile?.steps ?? []).flatMap(({ work, context, budget: { stepMs }, kernels }) => [
      named(`profile, ${context}: ${work} steps/s`, 1000 / stepMs),
      ...kernels.filter(({ ceilingShare }) => ceilingShare !== undefined).map(({ name, gigabytesPerSecond = NaN }) =>
        named(`profile, ${context}: ${work}, ${name} GB/s`, gigabytesPerSecond)
      ),
    ]),
  ];
}

function named(name: string, value: number): NamedFigure {
  return { name, value };
}

/** @throws {UsageError} when there is no such file, or it was not written by `--json` */
export async function readBenchFile(path: string): Promise<BenchFile> {
  let value: unknown;
  try {
    value = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new UsageError(`Cannot compare with ${path}: ${messageOf(error)}`);
  }
  if (isBenchFile(value)) return value;
  throw new UsageError(`Cannot compare with ${path}: must be a file of bench --json, format ${VERSION}`);
}

function isBenchFile(value: unknown): value is BenchFile {
  if (typeof value !== "object" || value === null || !("version" in value) || !("named" in value)) return false;
  const { version, named } = value;
  return version === VERSION && Array.isArray(named) &&
    named.every((figure: unknown) =>
      typeof figure === "object" && figure !== null && "name" in figure && typeof figure.name === "string" &&
      "value" in figure && typeof figure.value === "number"
    );
}

/** Ratios of what both runs measured; above 1 the new run is faster. */
export function comparison(before: BenchFile, now: BenchFile): { readonly table: Table; readonly notes: string[] } {
  const earlier = new Map(before.named.map(({ name, value }) => [name, value]));
  const both = now.named.filter(({ name }) => earlier.has(name));
  const columns = ["figure", "before", "now", "now / before"];
  const rows = both.map(({ name, value }) => {
    const old = earlier.get(name) ?? NaN;
    return [name, old.toFixed(1), value.toFixed(1), (value / old).toFixed(3)];
  });
  const differing = (["model", "budget", "fill"] as const).filter((key) => before[key] !== now[key])
    .map((key) => `${key}: ${before[key]} before, ${now[key]} now`);
  const [old, own] = [adapters(before), adapters(now)];
  if (old !== own) differing.push(`adapters: ${old} before, ${own} now`);
  return {
    table: { columns, rows },
    notes: [
      "",
      `* Compared with a run of ${before.date}: ${both.length} figures that both measured, ` +
      `${now.named.length - both.length} that only this one did, ${before.named.length - both.length} only that one.`,
      ...differing.map((line) => `* The runs differ, so ratios say little: ${line}`),
    ],
  };
}

function adapters({ groups }: BenchResult): string {
  return [...new Set(groups.flatMap(({ workers }) => workers.map(({ adapter }) => adapter)))].join(" · ");
}
