/**
 * `eval`: does the model still answer as it should, and what are corrections worth? Knows flags, and which part they ask
 * for; the files beside it measure and print.
 */

import { Engine } from "../../../engine/engine.ts";
import { MIN_BUDGET } from "../../../engine/layer_plan.ts";
import type { Command, FlagValues } from "../../command.ts";
import { UsageError } from "../../errors.ts";
import { EMBEDDED_MODEL, modelSource, QUANTIZE_FLAG, withLocalModel } from "../../model_choice.ts";
import { GPU_FLAG } from "../../host/worker_config.ts";
import type { Terminal } from "../../terminal.ts";
import { ensureVulkanDriver } from "../../host/vulkan_driver.ts";
import { evaluateAnswers, reportAnswers } from "./answers.ts";
import { evaluateChurn, reportChurn } from "./churn.ts";
import { evaluateCorrections } from "./corrections.ts";
import { plotCorrections, reportCorrections } from "./corrections_report.ts";
import { evaluateLossless, reportLossless } from "./lossless.ts";
import { EVALUATION_DATA } from "./evaluation_data.ts";

const flags = {
  model: {
    kind: "text",
    value: "DIR",
    default: EMBEDDED_MODEL,
    shownDefault: "the embedded tide-10m",
    help: "model directory, or a .gguf file",
  },
  ...QUANTIZE_FLAG,
  data: {
    kind: "text",
    value: "DIR",
    default: EVALUATION_DATA,
    shownDefault: "the embedded model's",
    help: "needles.jsonl, perplexity.json, greedy.json",
  },
  full: {
    kind: "switch",
    help:
      "everything, for a real GPU: all lengths and windows, both contexts; with --corrections 5 texts of 4000 + 2000 tokens; with --lossless 40 " +
      "questions of 300 tokens, by 1 and 2 workers",
  },
  needles: { kind: "integer", min: 0, max: 10000, default: 20, help: "needle cases of each length" },
  windows: { kind: "integer", min: 0, max: 12, default: 1, help: "perplexity windows of each book" },
  corrections: { kind: "switch", help: "instead: what corrections of sparse decoding are worth, and what they cost" },
  lossless: { kind: "switch", help: "instead: whether lossless answers are those of dense decoding, token for token" },
  churn: {
    kind: "integers",
    min: 1,
    max: 2 ** 24,
    help: "instead: how much of each selection is new after N tokens of text, e.g. 4096,16384",
  },
  prompts: { kind: "integer", min: 1, max: 40, default: 4, help: "lossless: number of questions" },
  workers: { kind: "integers", min: 1, max: 64, default: [1, 2], help: "lossless: numbers of workers to try" },
  texts: { kind: "integer", min: 1, max: 5, default: 1, help: "corrections: number of texts, each from another book" },
  context: {
    kind: "integer",
    min: 1,
    max: 2 ** 24,
    default: 1000,
    help: "corrections: tokens of context before the decoded ones",
  },
  tokens: {
    kind: "integer",
    min: 1,
    max: 2 ** 24,
    default: 256,
    help: "corrections, lossless, churn: tokens to decode",
  },
  budgets: {
    kind: "integers",
    min: MIN_BUDGET,
    max: 2 ** 20,
    default: [64, 256],
    help: "corrections, lossless, churn: sparse budgets",
  },
  strides: {
    kind: "integers",
    min: 1,
    max: 2 ** 16,
    default: [16, 32, 64, 128],
    help: "corrections: rows between corrections",
  },
  ...GPU_FLAG,
  plot: { kind: "text", value: "FILE.svg", help: "corrections: draw agreement and perplexity by position" },
  json: { kind: "switch", help: "print one JSON object" },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Needle accuracy, perplexity and greedy answers, dense and sparse; what corrections are worth",
  flags,
  async run(given: Values, terminal: Terminal): Promise<number> {
    const values = await withLocalModel(given, (fraction) => terminal.progress("Fetching the model", fraction));
    if (values.corrections && values.lossless) {
      throw new UsageError("Cannot evaluate: either --corrections or --lossless, both given");
    }
    if (values.churn !== undefined && (values.corrections || values.lossless)) {
      throw new UsageError("Cannot evaluate: either --churn, --corrections or --lossless, several given");
    }
    if (values.plot !== undefined && !values.corrections) {
      throw new UsageError("Cannot plot: --plot draws what --corrections measures, which is not given");
    }
    await ensureVulkanDriver((line) => terminal.error(line));
    // Its workers need the GPU's memory.
    if (values.lossless) return await lossless(values, terminal);
    // Its --context is that of the texts, not of the model.
    const model = modelSource({ ...values, context: "auto" });
    const engine = await Engine.open({ model, kvTokens: "auto", gpu: values.gpu });
    try {
      if (values.churn !== undefined) return await churn(engine, { ...values, churn: values.churn }, terminal);
      return values.corrections ? await corrections(engine, values, terminal) : await answers(engine, values, terminal);
    } finally {
      await engine.close();
    }
  },
};

async function answers(engine: Engine, values: Values, terminal: Terminal): Promise<number> {
  const found = await evaluateAnswers(engine, values, terminal);
  print(terminal, values.json ? [JSON.stringify(found, undefined, 2)] : reportAnswers(found));
  return found.greedy.equal === found.greedy.of ? 0 : 1;
}

async function corrections(engine: Engine, values: Values, terminal: Terminal): Promise<number> {
  const sample = values.full ? { ...values, texts: 5, context: 4000, tokens: 2000 } : values;
  const found = await evaluateCorrections(engine, sample, terminal);
  print(terminal, values.json ? [JSON.stringify(found, undefined, 2)] : reportCorrections(found));
  if (values.plot !== undefined) await Deno.writeTextFile(values.plot, plotCorrections(found));
  return 0;
}

async function churn(
  engine: Engine,
  values: Values & { readonly churn: readonly number[] },
  terminal: Terminal,
): Promise<number> {
  const found = await evaluateChurn(engine, values, terminal);
  print(terminal, values.json ? [JSON.stringify(found, undefined, 2)] : reportChurn(found));
  return 0;
}

async function lossless(values: Values, terminal: Terminal): Promise<number> {
  const sample = values.full ? { ...values, prompts: 40, tokens: 300, workers: [1, 2] } : values;
  const found = await evaluateLossless(sample, terminal);
  print(terminal, values.json ? [JSON.stringify(found, undefined, 2)] : reportLossless(found));
  return found.figures.every(({ identical, answers }) => identical === answers) ? 0 : 1;
}

function print(terminal: Terminal, lines: readonly string[]): void {
  for (const line of lines) terminal.line(line);
}
