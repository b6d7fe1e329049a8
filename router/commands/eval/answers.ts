/**
 * Does the model still answer as it should: greedy answers against known ones, needle accuracy and perplexity, dense and
 * sparse. Knows samples and tables; `engine/evaluation` knows how each is measured.
 */

import type { Engine } from "../../../engine/engine.ts";
import { greedyMatches } from "../../../engine/evaluation/greedy.ts";
import { loadTextModel, type NeedleVariant, runNeedle } from "../../../engine/evaluation/needles.ts";
import { windowNll } from "../../../engine/evaluation/perplexity.ts";
import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import type { SparseSettings } from "../../../engine/span.ts";
import type { Terminal } from "../../terminal.ts";
import { readGreedy, readNeedles, readWindows } from "./evaluation_data.ts";

/** Which part of the data is worked on. */
export interface AnswerOptions {
  /** Directories. */
  readonly model: string;
  readonly data: string;
  /** All lengths, all windows, both contexts. */
  readonly full: boolean;
  /** Cases of each length. */
  readonly needles: number;
  /** Of each book. */
  readonly windows: number;
}

/** One line of the needle table. */
export interface NeedleRow {
  readonly size: number;
  readonly variant: string;
  readonly right: number;
  readonly of: number;
}

/** One line of the perplexity table. */
export interface PerplexityRow {
  readonly context: number;
  readonly attention: string;
  readonly perplexity: number;
  /** What the reference found on the same windows under full attention. */
  readonly reference: number;
}

/** Everything that was found; `--json` prints it as it is. */
export interface Answers {
  readonly adapter: string;
  readonly selectLayers: readonly number[];
  readonly greedy: { readonly equal: number; readonly of: number };
  readonly needles: readonly NeedleRow[];
  readonly perplexity: readonly PerplexityRow[];
  readonly seconds: number;
}

const BUDGETS = [64, 256];

/** Needles up to this length are the default sample: a software adapter answers them in minutes. */
const SAMPLE_TOKENS = 1000;

const SPARSE = BUDGETS.map((budget): SparseSettings => ({ budget, heads: "kv_head" }));

const VARIANTS: readonly NeedleVariant[] = [false, true].flatMap((questionDecoded) => {
  const fed = questionDecoded ? "question decoded" : "question prefilled";
  return [
    { name: `dense, ${fed}`, sparse: undefined, questionDecoded },
    ...SPARSE.map((sparse) => ({ name: `sparse ${sparse.budget}, ${fed}`, sparse, questionDecoded })),
  ];
});

/** Answers, needles, perplexity. */
export async function evaluateAnswers(engine: Engine, options: AnswerOptions, terminal: Terminal): Promise<Answers> {
  const start = performance.now();
  const host = new SessionHost(engine);
  const greedy = await readGreedy(options.data);
  let equal = 0;
  for (const each of greedy) equal += await greedyMatches(host, each, engine.config.eosTokens) ? 1 : 0;
  terminal.progress("greedy answers", 1);
  return {
    adapter: engine.info.adapter,
    selectLayers: engine.info.selectLayers,
    greedy: { equal, of: greedy.length },
    needles: await evaluateNeedles(engine, options, terminal),
    perplexity: await evaluatePerplexity(engine, options, terminal),
    seconds: Math.round((performance.now() - start) / 1000),
  };
}

async function evaluateNeedles(engine: Engine, options: AnswerOptions, terminal: Terminal): Promise<NeedleRow[]> {
  const host = new SessionHost(engine);
  const text = await loadTextModel(options.model);
  const all = await readNeedles(options.data);
  const sizes = [...new Set(all.map(({ size }) => size))].filter((size) => options.full || size <= SAMPLE_TOKENS);
  const cases = sizes.flatMap((size) => all.filter((needle) => needle.size === size).slice(0, options.needles));
  const variants = engine.info.roles === undefined ? VARIANTS.filter(({ sparse }) => !sparse) : VARIANTS;
  const rows = new Map<string, { size: number; variant: string; right: number; of: number }>();
  for (const [i, needle] of cases.entries()) {
    const stop = engine.config.eosTokens;
    for (const { variant, correct } of await runNeedle(host, text, { needle, variants, stop })) {
      const key = `${needle.size} ${variant}`;
      const row = rows.get(key) ?? { size: needle.size, variant, right: 0, of: 0 };
      row.of++;
      if (correct) row.right++;
      rows.set(key, row);
    }
    terminal.progress("needles", (i + 1) / cases.length);
  }
  return [...rows.values()];
}

async function evaluatePerplexity(
  engine: Engine,
  options: AnswerOptions,
  terminal: Terminal,
): Promise<PerplexityRow[]> {
  const host = new SessionHost(engine);
  const contexts = options.full ? [512, 2000] : [512];
  const attentions = [undefined, ...(engine.info.roles === undefined ? [] : SPARSE)];
  const rows: PerplexityRow[] = [];
  for (const context of contexts) {
    const windows = await readWindows(options.data, { context, perBook: options.full ? 12 : options.windows });
    if (windows.length === 0) continue;
    const reference = Math.exp(windows.reduce((sum, { nll }) => sum + nll, 0) / windows.length);
    for (const sparse of attentions) {
      let nll = 0;
      for (const [i, window] of windows.entries()) {
        nll += await windowNll(host, window, sparse);
        terminal.progress(
          `perplexity ${context} ${sparse ? `sparse ${sparse.budget}` : "dense"}`,
          (i + 1) / windows.length,
        );
      }
      const attention = sparse === undefined ? "dense" : `sparse ${sparse.budget}, decoded`;
      rows.push({ context, attention, perplexity: Math.exp(nll / windows.length), reference });
    }
  }
  return rows;
}

/** Lines for people. */
export function reportAnswers(answers: Answers): readonly string[] {
  const { greedy, needles, perplexity } = answers;
  const sizes = [...new Set(needles.map(({ size }) => size))];
  const variants = [...new Set(needles.map(({ variant }) => variant))];
  const cell = (variant: string, size: number) => {
    const row = needles.find((each) => each.variant === variant && each.size === size);
    return row === undefined ? "–" : `${row.right}/${row.of}`;
  };
  return [
    `Adapter ${answers.adapter}; select layers {${answers.selectLayers.join(", ")}}; ${answers.seconds} s`,
    "",
    `Greedy answers equal: ${greedy.equal} of ${greedy.of}`,
    "",
    `| needles right, by text length | ${sizes.map((size) => `${size} tokens`).join(" | ")} |`,
    `|---|${sizes.map(() => "---").join("|")}|`,
    ...variants.map((variant) => `| ${variant} | ${sizes.map((size) => cell(variant, size)).join(" | ")} |`),
    "",
    "| perplexity | context | measured | reference (dense) |",
    "|---|---|---|---|",
    ...perplexity.map((row) =>
      `| ${row.attention} | ${row.context} | ${row.perplexity.toFixed(3)} | ${row.reference.toFixed(3)} |`
    ),
  ];
}
