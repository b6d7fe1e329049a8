/**
 * `bench`: prefill and decode speed by context and number of workers, dense, sparse and corrected, through worker
 * processes as in service. The files beside it measure and print.
 */

import type { Command } from "../../command.ts";
import { modelSource, nameOf, withLocalModel } from "../../model_choice.ts";
import type { Terminal } from "../../terminal.ts";
import { ensureVulkanDriver } from "../../host/vulkan_driver.ts";
import { BENCH_FLAGS, type BenchValues, checkFlags } from "./bench_flags.ts";
import { benchFile, comparison, readBenchFile } from "./compare.ts";
import { type BenchGroup, type GroupListener, listenerOn, measureReadBack, openBenchGroup } from "./group.ts";
import { measureGroup } from "./group_figures.ts";
import { profile } from "./profile.ts";
import { type GroupFigures, report } from "./report.ts";
import { measureThroughput, type ThroughputFigures } from "./throughput.ts";

export const command: Command<typeof BENCH_FLAGS> = {
  summary: "Prefill and decode speed by context and number of workers, dense, sparse and corrected",
  flags: BENCH_FLAGS,
  async run(given: BenchValues, terminal: Terminal): Promise<number> {
    const values = await withLocalModel(given, (fraction) => terminal.progress("Fetching the model", fraction));
    const agreements = checkFlags(values);
    const before = values.compare === undefined ? undefined : await readBenchFile(values.compare);
    await ensureVulkanDriver((line) => terminal.error(line));
    const readBackMs = await measureReadBack(values.gpu);
    const throughput = await measureGroups(values, listenerOn(terminal));
    const file = new BenchOutput(values, throughput);
    if (throughput.length === 0 && !values.profileOnly) {
      await measureByWorkers(values, { agreements, readBackMs, file, terminal });
    }
    const profiled = values.profile || values.profileOnly
      ? await profile(values, (fraction) => terminal.progress("profiled cache", fraction))
      : undefined;
    const result = await file.save(profiled);
    for (const line of report(result, before && comparison(before, result))) terminal.line(line);
    return 0;
  },
};

/** What was measured so far, and the file that keeps it: a run that is cut off leaves what it has measured. */
class BenchOutput {
  readonly #values: BenchValues;
  readonly #throughput: readonly ThroughputFigures[];
  readonly #groups: GroupFigures[] = [];
  #about: { readonly model: string; readonly parameters: number } | undefined;

  constructor(values: BenchValues, throughput: readonly ThroughputFigures[]) {
    this.#values = values;
    this.#throughput = throughput;
    this.#about = throughput[0];
  }

  /** Keeps the figures of the i-th group in place of those that it had. */
  async keep(i: number, { id, parameters }: BenchGroup["info"], figures: GroupFigures): Promise<void> {
    this.#about = { model: id, parameters };
    this.#groups[i] = figures;
    await this.save(undefined);
  }

  async save(profiled: Awaited<ReturnType<typeof profile>> | undefined): Promise<ReturnType<typeof benchFile>> {
    const { budget, fill, json } = this.#values;
    const about = this.#about ?? { model: nameOf(modelSource(this.#values)), parameters: profiled?.parameters ?? 0 };
    const result = benchFile({
      date: new Date().toISOString().slice(0, 10),
      model: about.model,
      parameters: about.parameters,
      budget,
      fill,
      groups: this.#groups,
      ...(profiled && { profile: profiled }),
      ...(this.#throughput.length > 0 && { throughput: this.#throughput }),
    });
    if (json !== undefined) await Deno.writeTextFile(json, JSON.stringify(result, undefined, 2) + "\n");
    return result;
  }
}

/** Measures a group of each asked number of workers, one after the other. */
async function measureByWorkers(
  values: BenchValues,
  { agreements, readBackMs, file, terminal }: {
    readonly agreements: readonly number[];
    readonly readBackMs: number;
    readonly file: BenchOutput;
    readonly terminal: Terminal;
  },
): Promise<void> {
  const common = {
    ...values,
    corrections: values.corrections ?? [],
    together: values.together ?? [],
    batch: values.batch ?? [],
    prompts: values.prompts ?? [],
    agreements,
    readBackMs,
  };
  for (const [i, workers] of values.workers.entries()) {
    const group = await openBenchGroup(values, workers, listenerOn(terminal));
    try {
      await measureGroup(group, common, { terminal, onFigures: (figures) => file.keep(i, group.info, figures) });
    } finally {
      await group.close();
    }
  }
}

/** What each asked number of groups answers, by each number of workers; none when none was asked for. */
async function measureGroups(
  values: BenchValues,
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
