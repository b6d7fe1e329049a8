/**
 * `bench`: prefill and decode speed by context and number of workers, dense and sparse, through worker processes as in
 * service. Knows flags; what is measured and how it is shown is said in the files beside it.
 */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { type Command, type FlagValues, UsageError } from "../command_line.ts";
import { MODEL_FLAGS } from "../config.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../vulkan_driver.ts";
import { type ContextFigures, measure, tokensOf, warmUp } from "./bench_figures.ts";
import { type BenchGroup, measureReadBack, openBenchGroup } from "./bench_group.ts";
import { type BenchResult, type GroupFigures, report } from "./bench_report.ts";

const flags = {
  ...MODEL_FLAGS,
  workers: {
    kind: "integers",
    min: 1,
    max: 64,
    default: [1],
    help: "measure with so many workers, one after the other",
  },
  contexts: { kind: "integers", min: 1, max: 2 ** 24, default: [256, 1024], help: "context lengths in tokens" },
  budget: { kind: "integer", min: 16, max: 2 ** 20, default: 256, help: "positions a sparse layer reads" },
  tokens: { kind: "integer", min: 2, max: 10000, default: 16, help: "tokens to decode at each context, per attention" },
  chunk: { kind: "integer", min: 16, max: 8192, default: 512, help: "prompt tokens per prefill step" },
  json: { kind: "switch", help: "print one JSON object" },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Prefill and decode speed by context and number of workers, dense and sparse",
  flags,
  async run(values: Values, terminal: Terminal): Promise<number> {
    const most = Math.max(...values.workers);
    if (values.kvTokens.length > 1 && values.kvTokens.length !== most) {
      throw new UsageError(
        `Cannot deal KV capacity: one for all or one for each of ${most} workers is needed, given [${
          values.kvTokens.join(", ")
        }]`,
      );
    }
    await ensureVulkanDriver((line) => terminal.error(line));
    const readBackMs = await measureReadBack();
    const groups: GroupFigures[] = [];
    let about = { model: "", parameters: 0 };
    for (const workers of values.workers) {
      const group = await openBenchGroup(values, workers, (fraction) => terminal.progress("weights", fraction));
      try {
        about = { model: group.facts.id, parameters: group.facts.parameters };
        groups.push(await measureGroup(group, values, readBackMs));
      } finally {
        await group.close();
      }
    }
    const date = new Date().toISOString().slice(0, 10);
    const result: BenchResult = { date, ...about, budget: values.budget, groups };
    if (values.json) terminal.line(JSON.stringify(result, undefined, 2));
    else for (const line of report(result)) terminal.line(line);
    return 0;
  },
};

async function measureGroup(group: BenchGroup, values: Values, readBackMs: number): Promise<GroupFigures> {
  const { facts, longest, places } = group;
  const measured = values.contexts.map((context) => ({ ...values, context, readBackMs }));
  const fitting = measured.filter((options) => tokensOf(options) <= longest.tokens);
  if (fitting.length > 0) await warmUp(group);
  const figures: ContextFigures[] = [];
  for (const options of fitting) figures.push(await measure(group, options));
  return {
    workers: facts.slices.map((pages, i) => ({
      adapter: facts.adapters[i] ?? facts.adapter,
      kvTokens: pages * PAGE_TOKENS,
      place: places[i] ?? null,
    })),
    kvTokens: facts.kvPages * PAGE_TOKENS,
    longestContext: longest.tokens,
    figures,
    skipped: measured.filter((options) => !fitting.includes(options)).map(({ context }) => context),
  };
}
