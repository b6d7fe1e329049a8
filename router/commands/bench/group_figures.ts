/** Everything that `bench` measures on one group: its contexts, prompts and batches, as far as they fit. */

import { PAGE_TOKENS } from "../../../engine/span.ts";
import type { Terminal } from "../../terminal.ts";
import { type BatchOptions, measureBatches } from "./batches.ts";
import type { BenchValues } from "./bench_flags.ts";
import { type ContextFigures, measure, type MeasureOptions, tokensOf, warmUp } from "./figures.ts";
import { copied, type Filling, prefilled } from "./fill.ts";
import type { BenchGroup } from "./group.ts";
import { measurePrompts } from "./prompts.ts";
import { type GroupFigures, speedLine } from "./report.ts";
import { measureTogether, type TogetherFigures } from "./together.ts";

/** What to measure. */
export type GroupOptions =
  & Omit<MeasureOptions, "context">
  & BatchOptions
  & Pick<BenchValues, "contexts" | "chunk" | "fill">
  & {
    readonly together: readonly number[];
    readonly prompts: readonly number[];
  };

/** Who follows the measuring. */
export interface GroupProgress {
  readonly terminal: Terminal;
  /** Gets all that is measured so far. */
  readonly onFigures: (figures: GroupFigures) => Promise<void>;
}

/** Measures contexts, then prompts, then batches; what does not fit is listed as skipped. */
export async function measureGroup(
  group: BenchGroup,
  common: GroupOptions,
  { terminal, onFigures }: GroupProgress,
): Promise<void> {
  const { longest } = group;
  const contexts = common.contexts.map((context) => ({ ...common, context }));
  const fitting = contexts.filter((options) => tokensOf(options) <= longest.tokens);
  const prompts = common.prompts.filter((length) => length < longest.tokens);
  const skipped = [
    ...contexts.filter((options) => !fitting.includes(options)).map(({ context }) => context),
    ...common.prompts.filter((length) => !prompts.includes(length)),
  ];
  let soFar: GroupFigures = { ...aboutGroup(group), figures: [], skipped };
  const add = (more: Partial<GroupFigures>) => onFigures(soFar = { ...soFar, ...more });
  if (fitting.length > 0) await measureContexts(group, fitting, { common, terminal, add });
  if (prompts.length > 0) {
    const filling = await fillingOf(group, { ...common, fill: "prefill", deepest: 0, terminal });
    await add({ prompts: await measurePrompts(filling, prompts) });
    await filling.close();
  }
  await add(common.batch.length === 0 ? {} : { batches: await measureBatches(group, common) });
}

async function measureContexts(
  group: BenchGroup,
  fitting: readonly MeasureOptions[],
  { common, terminal, add }: {
    readonly common: GroupOptions;
    readonly terminal: Terminal;
    add(more: Partial<GroupFigures>): Promise<void>;
  },
): Promise<void> {
  const { info } = group;
  const figures: ContextFigures[] = [];
  const together: TogetherFigures[] = [];
  await warmUp(group);
  const deepest = Math.max(...fitting.map(({ context }) => context));
  const filling = await fillingOf(group, { ...common, deepest, terminal });
  for (const options of fitting) {
    const measured = await measure(group, filling, options);
    figures.push(measured);
    // The tables are printed at the end, which a run that is cut off does not reach.
    const workers = info.slices.length;
    terminal.error(`${workers} worker${workers === 1 ? "" : "s"}, ${speedLine(measured)}`);
    if (info.roles !== undefined && options.context > options.budget && options.context === deepest) {
      for (const sequences of common.together) {
        together.push(await measureTogether(group, filling, { ...options, sequences }));
      }
    }
    await add({ figures, ...(together.length > 0 && { together }) });
  }
  await filling.close();
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
