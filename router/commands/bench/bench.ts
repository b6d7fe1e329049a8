/**
 * `bench`: prefill and decode speed by context and number of workers, dense, sparse and corrected, through worker
 * processes as in service. Knows flags; the files beside it measure and print.
 */

import { PAGE_TOKENS } from "../../../engine/span.ts";
import type { Command, FlagValues } from "../../command.ts";
import { UsageError } from "../../errors.ts";
import { MODEL_FLAGS, modelSource, nameOf, withLocalModel } from "../../model_choice.ts";
import type { Terminal } from "../../terminal.ts";
import { ensureVulkanDriver } from "../../host/vulkan_driver.ts";
import { type BatchOptions, measureBatches } from "./batches.ts";
import { benchFile, comparison, readBenchFile } from "./compare.ts";
import { type ContextFigures, measure, type MeasureOptions, tokensOf, warmUp } from "./figures.ts";
import { copied, type Filling, prefilled } from "./fill.ts";
import { type BenchGroup, type GroupListener, listenerOn, measureReadBack, openBenchGroup } from "./group.ts";
import { profile } from "./profile.ts";
import { measurePrompts } from "./prompts.ts";
import { type GroupFigures, report, speedLine } from "./report.ts";
import { measureTogether, type TogetherFigures } from "./together.ts";
import { measureThroughput, type ThroughputFigures } from "./throughput.ts";

const flags = {
  ...MODEL_FLAGS,
  workers: {
    kind: "integers",
    min: 1,
    max: 64,
    default: [1],
    help: "numbers of workers to measure with, in turn",
  },
  groups: {
    kind: "integers",
    min: 1,
    max: 64,
    help: "measure only the throughput of N groups, e.g. 1,2: --chats prompts of up to " +
      "--batch-context tokens at a time, with answers of --tokens (default: off)",
  },
  chats: { kind: "integer", min: 1, max: 4096, default: 32, help: "chats in flight while groups are timed" },
  seconds: { kind: "integer", min: 1, max: 3600, default: 20, help: "how long groups are timed, in seconds" },
  contexts: { kind: "integers", min: 1, max: 2 ** 24, default: [256, 1024], help: "context lengths in tokens" },
  budget: { kind: "integer", min: 16, max: 2 ** 20, default: 256, help: "positions a sparse layer reads" },
  tokens: {
    kind: "integer",
    min: 2,
    max: 10000,
    default: 128,
    help: "tokens to decode and time at each context, dense and sparse",
  },
  untimed: {
    kind: "integer",
    min: 1,
    max: 10000,
    default: 100,
    help: "tokens to decode before timing starts, while compilers and clocks settle",
  },
  chunk: { kind: "integer", min: 16, max: 8192, default: 512, help: "prompt tokens per prefill step" },
  fill: {
    kind: "choice",
    choices: ["prefill", "copied"],
    default: "prefill",
    help: "how the KV cache is filled: prefill reads (and times) a prompt of each context's length; copied joins the " +
      "pages of many short prompts, which saves minutes with a large model at long contexts",
  },
  prompts: {
    kind: "integers",
    min: 1,
    max: 2 ** 24,
    help: "with --fill copied: lengths of prompts to read and time as well (default: none)",
  },
  corrections: {
    kind: "integers",
    min: 2,
    max: 4096,
    help: "measure sparse decoding with a correction every N tokens (default: off)",
  },
  agreement: {
    kind: "text",
    value: "A,…",
    help: "measure lossless rounds, for drafts of which this share (0 to 1) agrees (default: off)",
  },
  together: {
    kind: "integers",
    min: 1,
    max: 64,
    help:
      "with --agreement: also measure lossless rounds of N sequences of the longest context together (default: off)",
  },
  cycles: { kind: "integer", min: 2, max: 1000, default: 3, help: "fewest cycles to time for each correction stride" },
  batch: {
    kind: "integers",
    min: 1,
    max: 256,
    help: "measure N sequences of mixed lengths decoding together, e.g. 1,8,32,64 (default: off)",
  },
  batchContext: {
    kind: "integer",
    min: 4,
    max: 2 ** 24,
    default: 2048,
    help: "longest sequence of a batch; the shortest is a quarter of it",
  },
  profile: { kind: "switch", help: "time every kernel on the GPU's clock, and the rest of a step" },
  profileOnly: { kind: "switch", help: "only --profile: no worker is started" },
  json: { kind: "text", value: "FILE", help: "also write every figure to a file" },
  compare: { kind: "text", value: "FILE", help: "also print ratios to the figures of an earlier --json file" },
} as const;

type Values = FlagValues<typeof flags>;

export const command: Command<typeof flags> = {
  summary: "Prefill and decode speed by context and number of workers, dense, sparse and corrected",
  flags,
  async run(given: Values, terminal: Terminal): Promise<number> {
    const values = await withLocalModel(given, (fraction) => terminal.progress("Fetching the model", fraction));
    const most = Math.max(...values.workers);
    if (values.kvTokens.length > 1 && values.kvTokens.length !== most) {
      throw new UsageError(
        `Cannot deal KV capacity: one for all or one for each of ${most} workers is needed, given [${
          values.kvTokens.join(", ")
        }]`,
      );
    }
    const agreements = values.agreement === undefined ? [] : parseAgreements(values.agreement);
    if (values.together !== undefined && agreements.length === 0) {
      throw new UsageError("Cannot measure sequences together: --together needs --agreement");
    }
    const before = values.compare === undefined ? undefined : await readBenchFile(values.compare);
    await ensureVulkanDriver((line) => terminal.error(line));
    const common = {
      ...values,
      corrections: values.corrections ?? [],
      together: values.together ?? [],
      batch: values.batch ?? [],
      prompts: values.prompts ?? [],
      agreements,
      readBackMs: await measureReadBack(values.gpu),
    };
    const throughput = await measureGroups(values, listenerOn(terminal));
    const groups: GroupFigures[] = [];
    let { model, parameters } = throughput[0] ?? { model: "", parameters: 0 };
    const save = async (measured: Pick<Parameters<typeof benchFile>[0], "profile" | "throughput">) => {
      const date = new Date().toISOString().slice(0, 10);
      const { budget, fill, json } = values;
      const result = benchFile({ date, model, parameters, budget, fill, groups, ...measured });
      if (json !== undefined) await Deno.writeTextFile(json, JSON.stringify(result, undefined, 2) + "\n");
      return result;
    };
    for (const workers of throughput.length > 0 || values.profileOnly ? [] : values.workers) {
      const group = await openBenchGroup(values, workers, listenerOn(terminal));
      try {
        ({ id: model, parameters } = group.info);
        const before = groups.length;
        // A run that is cut off leaves what it has measured.
        await measureGroup(group, common, {
          terminal,
          onFigures: async (figures) => {
            groups[before] = figures;
            await save({});
          },
        });
      } finally {
        await group.close();
      }
    }
    const profiled = values.profile || values.profileOnly
      ? await profile(values, (fraction) => terminal.progress("profiled cache", fraction))
      : undefined;
    if (profiled !== undefined && model === "") {
      [model, parameters] = [nameOf(modelSource(values)), profiled.parameters];
    }
    const result = await save({ ...(profiled && { profile: profiled }), ...(throughput.length > 0 && { throughput }) });
    for (const line of report(result, before && comparison(before, result))) terminal.line(line);
    return 0;
  },
};

/** What each asked number of groups answers, by each number of workers; none when none was asked for. */
async function measureGroups(
  values: Values,
  listener: GroupListener,
): Promise<readonly ThroughputFigures[]> {
  const figures: ThroughputFigures[] = [];
  for (const workers of values.workers) {
    for (const groups of values.groups ?? []) {
      figures.push(await measureThroughput({ ...values, model: values, groups, workers, listener }));
    }
  }
  return figures;
}

/**
 * Shares from 0 to 1, comma-separated.
 * @throws {UsageError}
 */
export function parseAgreements(text: string): readonly number[] {
  return text.split(",").map((part) => {
    const value = part.trim() === "" ? NaN : Number(part);
    if (value >= 0 && value <= 1) return value;
    throw new UsageError(
      `Cannot parse --agreement: must be a number from 0 to 1, or several, comma-separated, given "${text}"`,
    );
  });
}

type GroupOptions = Omit<MeasureOptions, "context"> & BatchOptions & Pick<Values, "contexts" | "chunk" | "fill"> & {
  readonly together: readonly number[];
  readonly prompts: readonly number[];
};

interface GroupProgress {
  readonly terminal: Terminal;
  /** Gets all that is measured so far. */
  readonly onFigures: (figures: GroupFigures) => Promise<void>;
}

async function measureGroup(
  group: BenchGroup,
  common: GroupOptions,
  { terminal, onFigures }: GroupProgress,
): Promise<void> {
  const { info, longest } = group;
  const measured = common.contexts.map((context) => ({ ...common, context }));
  const fitting = measured.filter((options) => tokensOf(options) <= longest.tokens);
  const prompts = common.prompts.filter((length) => length < longest.tokens);
  const skipped = [
    ...measured.filter((options) => !fitting.includes(options)).map(({ context }) => context),
    ...common.prompts.filter((length) => !prompts.includes(length)),
  ];
  const figures: ContextFigures[] = [];
  const together: TogetherFigures[] = [];
  let soFar: GroupFigures = { ...aboutGroup(group), figures, skipped };
  const add = (more: Partial<GroupFigures>) => onFigures(soFar = { ...soFar, ...more });
  if (fitting.length > 0) {
    await warmUp(group);
    const deepest = Math.max(...fitting.map(({ context }) => context));
    const filling = await fillingOf(group, { ...common, deepest, terminal });
    for (const options of fitting) {
      const measured = await measure(group, filling, options);
      figures.push(measured);
      // The tables are printed at the end, which a run that is cut off does not reach.
      terminal.error(`${info.slices.length} workers, ${speedLine(measured)}`);
      if (info.roles !== undefined && options.context > options.budget && options.context === deepest) {
        for (const sequences of common.together) {
          together.push(await measureTogether(group, filling, { ...options, sequences }));
        }
      }
      await add(together.length > 0 ? { together } : {});
    }
    await filling.close();
  }
  if (prompts.length > 0) {
    const filling = await fillingOf(group, { ...common, fill: "prefill", deepest: 0, terminal });
    await add({ prompts: await measurePrompts(filling, prompts) });
    await filling.close();
  }
  await add(common.batch.length === 0 ? {} : { batches: await measureBatches(group, common) });
}

function aboutGroup(
  { info, longest, places }: BenchGroup,
): Pick<GroupFigures, "workers" | "kvTokens" | "longestContext"> {
  return {
    workers: info.slices.map((pages, i) => ({
      adapter: info.adapters[i] ?? info.adapter,
      kvTokens: pages * PAGE_TOKENS,
      place: places[i] ?? null,
    })),
    kvTokens: info.kvPages * PAGE_TOKENS,
    longestContext: longest.tokens,
  };
}

async function fillingOf(
  { host, map, longest: { pageOffset } }: BenchGroup,
  { budget, chunk, fill, deepest, terminal }: GroupOptions & {
    /** Longest context to be opened, of copied ones. */
    readonly deepest: number;
    readonly terminal: Terminal;
  },
): Promise<Filling> {
  const onProgress = (fraction: number) => terminal.progress("cache", fraction);
  const options = {
    host,
    map,
    chunk,
    session: { sparse: { budget, heads: "kv_head" }, pageOffset, audited: true },
  } as const;
  return fill === "prefill"
    ? prefilled({ ...options, onProgress })
    : await copied({ ...options, longest: deepest, onProgress });
}
