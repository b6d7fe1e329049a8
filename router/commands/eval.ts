/**
 * `eval`: does the model still answer as it should? Knows flags; what is measured and how it is shown is said in the file
 * beside it.
 */

import { Engine } from "../../engine/engine.ts";
import { type Command, type FlagValues } from "../command_line.ts";
import { EMBEDDED_MODEL } from "../config.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../vulkan_driver.ts";
import { evaluateAnswers, reportAnswers } from "./eval_answers.ts";
import { EVALUATION_DATA } from "./evaluation_data.ts";

const flags = {
  model: {
    kind: "text",
    value: "DIR",
    default: EMBEDDED_MODEL,
    shownDefault: "the embedded tide-10m",
    help: "model directory",
  },
  data: {
    kind: "text",
    value: "DIR",
    default: EVALUATION_DATA,
    shownDefault: "the embedded model's",
    help: "needles.jsonl, perplexity.json, greedy.json",
  },
  full: { kind: "switch", help: "all lengths, all windows, both contexts: for a real GPU" },
  needles: { kind: "integer", min: 0, max: 10000, default: 20, help: "needle cases of each length" },
  windows: { kind: "integer", min: 0, max: 12, default: 1, help: "perplexity windows of each book" },
  json: { kind: "switch", help: "print one JSON object" },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Needle accuracy, perplexity and greedy answers, dense and sparse",
  flags,
  async run(values: Values, terminal: Terminal): Promise<number> {
    await ensureVulkanDriver((line) => terminal.error(line));
    const engine = await Engine.open({ model: { directory: values.model }, kvTokens: "auto" });
    try {
      return await answers(engine, values, terminal);
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

function print(terminal: Terminal, lines: readonly string[]): void {
  for (const line of lines) terminal.line(line);
}
