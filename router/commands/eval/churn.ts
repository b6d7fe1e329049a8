/**
 * How much of what select layers choose is new from row to row, on held-out text. Knows texts and tables;
 * `engine/evaluation/churn.ts` knows what is counted.
 */

import type { Engine } from "../../../engine/engine.ts";
import { type ChurnFigures, churnOf } from "../../../engine/evaluation/churn.ts";
import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { UsageError } from "../../errors.ts";
import type { Terminal } from "../../terminal.ts";
import { readJoinedText } from "./evaluation_data.ts";
import { markdownTable, percent } from "../markdown_table.ts";

/** What to measure. */
export interface ChurnCommandOptions {
  /** Directory of the texts. */
  readonly data: string;
  /** Behind so many tokens each. */
  readonly churn: readonly number[];
  readonly budgets: readonly number[];
  /** To decode; the first half only fills the stores. */
  readonly tokens: number;
}

/** Sizes of stores that are tried, in budgets. */
const STORES = [2, 4, 8, 16] as const;

/** What was found at one context and budget; `--json` prints these as they are. */
export interface ChurnRow extends ChurnFigures {
  readonly context: number;
  readonly budget: number;
}

/** @throws {UsageError} when the texts together are shorter than the longest context */
export async function evaluateChurn(
  engine: Engine,
  { data, churn, budgets, tokens }: ChurnCommandOptions,
  terminal: Terminal,
): Promise<readonly ChurnRow[]> {
  const contexts = [...churn].sort((a, b) => a - b).map((length) => Math.ceil(length / PAGE_TOKENS) * PAGE_TOKENS);
  const longest = (contexts.at(-1) ?? 0) + tokens;
  if (longest > engine.config.maxPositions) {
    throw new UsageError(
      `Cannot measure churn: ${longest} positions exceed the model's context of ${engine.config.maxPositions}`,
    );
  }
  const text = await readJoinedText(data, longest);
  const { heads, kvHeads } = engine.config;
  const variants = budgets.map((budget) => ({
    config: { heads, kvHeads },
    sparse: { budget, heads: "kv_head" } as const,
    stores: STORES,
    uncounted: Math.floor(tokens / 2),
  }));
  const rows: ChurnRow[] = [];
  const measured = churnOf(new SessionHost(engine), text, { contexts, rows: tokens, variants });
  for await (const { context, variant, figures } of measured) {
    rows.push({ context, budget: variant.sparse.budget, ...figures });
    terminal.progress("churn", rows.length / (contexts.length * variants.length));
  }
  return rows;
}

/** Lines for people. */
export function reportChurn(rows: readonly ChurnRow[]): readonly string[] {
  const columns = ["context", "budget", "new from row to row", ...STORES.map((size) => `missing from ${size} budgets`)];
  const cells = ({ context, budget, fresh, missing }: ChurnRow) => [
    `${context}`,
    `${budget}`,
    ...[fresh, ...missing].map((share) => percent(share, 1)),
  ];
  return markdownTable(columns, rows.map(cells));
}
