/**
 * Where the time of a step goes: every kernel on the GPU's clock, and what is left between kernels, between submits and on
 * the host. Runs on an engine in this process, as kernels are timed where they are recorded; there is no wire in it.
 */

import { Engine } from "../../../engine/engine.ts";
import { PageMap } from "../../../engine/page_map.ts";
import { type HandSpan, type Session, SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { type Ceilings, measureCeilings } from "../../../kernels/ceilings.ts";
import type { TimedPass } from "../../../kernels/timestamps.ts";
import { modelSource } from "../../model_choice.ts";
import { copied, type Filling, prefilled } from "./fill.ts";
import type { BenchModel } from "./group.ts";
import { type ProfiledStep, workOf } from "./kernel_work.ts";
import { AHEAD_STEPS, type AheadFigures, durationNs, passesOf, sum, TIMED_STEPS, timedAhead } from "./step_passes.ts";
import { randomTokens, timedStep } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** A kernel's part of a step: all dispatches of one operation and shape. */
export interface KernelFigures {
  readonly name: string;
  /** Dispatches a step. */
  readonly count: number;
  readonly msPerStep: number;
  /** Undefined where nothing is counted. */
  readonly gigabytesPerSecond?: number;
  readonly teraflopPerSecond?: number;
  /** Of the ceiling that binds it: the larger of its shares of reading and of multiplying. */
  readonly ceilingShare?: number;
}

/** What a step's time consists of; the parts add up to `stepMs`. */
export interface StepBudget {
  /** Mean round trip of a step that nothing times. */
  readonly stepMs: number;
  /** Sum of the kernels, each in a pass of its own. */
  readonly kernelsMs: number;
  /** Within passes, beside the kernels: barriers and launches. Negative where kernels overlap in a pass of many. */
  readonly betweenDispatchesMs: number;
  /** Between passes: the GPU waits for a submit. */
  readonly betweenPassesMs: number;
  /** Before the first pass and after the last: planning, recording, the read-back. */
  readonly hostMs: number;
}

/** One kind of step at one context. */
export interface StepProfile {
  readonly work: string;
  readonly context: number;
  readonly rows: number;
  readonly budget: StepBudget;
  /** Of decoding. */
  readonly ahead?: AheadFigures;
  /** The slowest first. */
  readonly kernels: readonly KernelFigures[];
}

/** All profiles of one adapter. */
export interface ProfileFigures {
  readonly adapter: string;
  /** Of the model. */
  readonly parameters: number;
  readonly ceilings: Ceilings;
  readonly steps: readonly StepProfile[];
}

/** What to profile. */
export interface ProfileOptions extends BenchModel {
  readonly contexts: readonly number[];
  readonly budget: number;
  readonly chunk: number;
  readonly fill: "prefill" | "copied";
  /** Steps that nothing times with a clock, and timed ones, of decoding. */
  readonly untimed: number;
  readonly tokens: number;
}

/** Steps of long spans, with and without timestamps. */
const SPAN_STEPS = 4;
/** Rows of the profiled correction. */
const CORRECTION_ROWS = 32;

/** Opens an engine in this process, profiles every context that fits, and closes it. */
export async function profile(
  options: ProfileOptions,
  onProgress: (fraction: number) => void,
): Promise<ProfileFigures> {
  const { contexts, kvTokens, untimed, tokens, gpu } = options;
  const engine = await Engine.open({ model: modelSource(options), kvTokens: kvTokens[0] ?? "auto", gpu });
  try {
    const { info } = engine;
    const ceilings = await measureCeilings(engine.commands);
    const map = new PageMap([info.kvPages]);
    const host = new SessionHost({ info, run: (step) => engine.run(step) }, map);
    const behind = Math.max(untimed + tokens, 2 * AHEAD_STEPS, CORRECTION_ROWS, options.chunk);
    const longest = Math.min(info.maxPositions, info.kvPages * 64) - behind;
    const fitting = contexts.filter((context) => context <= longest);
    const steps: StepProfile[] = [];
    if (fitting.length > 0) {
      const filling = await fillingOf(host, map, { ...options, deepest: Math.max(...fitting), onProgress });
      for (const context of fitting) {
        steps.push(...await profileContext({ engine, host, filling, ceilings }, context, options));
      }
      await filling.close();
    }
    return { adapter: info.adapter, parameters: info.parameters, ceilings, steps };
  } finally {
    await engine.close();
  }
}

async function fillingOf(
  host: SessionHost,
  map: PageMap,
  { budget, chunk, fill, deepest, onProgress }: ProfileOptions & {
    readonly deepest: number;
    readonly onProgress: (fraction: number) => void;
  },
): Promise<Filling> {
  const session = { sparse: { budget, heads: "kv_head" }, pageOffset: 0 } as const;
  const options = { host, map, chunk, session };
  return fill === "prefill"
    ? prefilled({ ...options, onProgress })
    : await copied({ ...options, longest: deepest, onProgress });
}

interface Bench {
  readonly engine: Engine;
  readonly host: SessionHost;
  readonly filling: Filling;
  readonly ceilings: Ceilings;
}

/** A kind of step, which starts at the context every time. */
interface Work {
  readonly name: string;
  readonly rows: number;
  readonly untimed: number;
  readonly steps: number;
  /** Given: it decodes a row so. */
  readonly attention?: "dense" | "sparse";
  readonly span: (tokens: Uint32Array) => HandSpan;
}

async function profileContext(bench: Bench, context: number, options: ProfileOptions): Promise<StepProfile[]> {
  const { engine: { info }, filling } = bench;
  const { session } = await filling.open(context);
  try {
    const profiles: StepProfile[] = [];
    const sparse = info.roles !== undefined && context > options.budget;
    for (const work of worksOf(options).filter(({ name }) => sparse || name !== "decode, sparse")) {
      profiles.push(await profileWork(bench, session, { work, context, budget: options.budget }));
    }
    return profiles;
  } finally {
    await session.close();
  }
}

function worksOf({ untimed, tokens, chunk }: ProfileOptions): Work[] {
  const decode = { rows: 1, untimed, steps: tokens };
  const long = { untimed: 2, steps: SPAN_STEPS };
  return [
    ...(["dense", "sparse"] as const).map((attention): Work => ({
      ...decode,
      name: `decode, ${attention}`,
      attention,
      span: (tokens) => ({ kind: "decode", attention, tokens, logits: "last" }),
    })),
    {
      ...long,
      name: `correction of ${CORRECTION_ROWS}`,
      rows: CORRECTION_ROWS,
      span: (tokens) => ({ kind: "decode", attention: "dense", tokens, logits: "last" }),
    },
    {
      ...long,
      name: `prefill of ${chunk}`,
      rows: chunk,
      span: (tokens) => ({ kind: "prefill", tokens, logits: "none" }),
    },
  ];
}

async function profileWork(
  { engine, host, ceilings }: Bench,
  session: Session,
  { work, context, budget }: { readonly work: Work; readonly context: number; readonly budget: number },
): Promise<StepProfile> {
  const tokens = randomTokens(work.rows, engine.info.vocabSize);
  // Every step starts at the context: a few positions more or less would not show, rows of different lengths would.
  const run = async () => (await timedStep(host, session, { ...work.span(tokens), from: context })).stepMs;
  for (let i = 0; i < work.untimed; i++) await run();
  const stepTimes: number[] = [];
  for (let i = 0; i < work.steps; i++) stepTimes.push(await run());
  const timedSteps = Math.min(TIMED_STEPS, work.steps);
  const whole = await passesOf(engine, { unit: "pass", run, steps: timedSteps });
  const single = await passesOf(engine, { unit: "dispatch", run, steps: timedSteps });
  const step = { config: engine.config, from: context, rows: work.rows, budget };
  return {
    work: work.name,
    context,
    rows: work.rows,
    budget: budgetOf(mean(stepTimes), whole, single),
    ...(work.attention && { ahead: await timedAhead(engine, { host, session, context }, work.attention) }),
    kernels: kernelFigures(single, step, ceilings),
  };
}

/**
 * @param whole passes as they are, of several steps
 * @param single a pass for every dispatch
 */
export function budgetOf(
  stepMs: number,
  whole: readonly (readonly TimedPass[])[],
  single: readonly (readonly TimedPass[])[],
): StepBudget {
  const busyMs = mean(whole.map((passes) => sum(passes.map(durationNs)))) / 1e6;
  const onGpuMs = mean(whole.map((passes) => (passes.at(-1)?.endNs ?? 0) - (passes[0]?.startNs ?? 0))) / 1e6;
  const kernelsMs = mean(single.map((passes) => sum(passes.map(durationNs)))) / 1e6;
  return {
    stepMs,
    kernelsMs,
    betweenDispatchesMs: busyMs - kernelsMs,
    betweenPassesMs: onGpuMs - busyMs,
    hostMs: stepMs - onGpuMs,
  };
}

/** Dispatches of the same operation and shape together, the slowest first. */
export function kernelFigures(
  steps: readonly (readonly TimedPass[])[],
  step: ProfiledStep,
  { readGigabytesPerSecond, fmaTeraflopPerSecond }: Ceilings,
): KernelFigures[] {
  const counted = steps.flat().flatMap((pass) =>
    pass.dispatches.map((dispatch) => ({ ns: durationNs(pass), ...workOf(dispatch, step) }))
  );
  const figures = [...Map.groupBy(counted, ({ name }) => name)].map(([name, dispatches]): KernelFigures => {
    const ns = sum(dispatches.map(({ ns }) => ns));
    const of = (work: "bytes" | "flop") =>
      dispatches.some(({ [work]: amount }) => amount === undefined)
        ? undefined
        : sum(dispatches.map(({ [work]: amount = 0 }) => amount)) / ns;
    const [gigabytesPerSecond, gigaflopPerMs] = [of("bytes"), of("flop")];
    const teraflopPerSecond = gigaflopPerMs === undefined ? undefined : gigaflopPerMs / 1e3;
    const shares = [
      ...(gigabytesPerSecond === undefined ? [] : [gigabytesPerSecond / readGigabytesPerSecond]),
      ...(teraflopPerSecond === undefined ? [] : [teraflopPerSecond / fmaTeraflopPerSecond]),
    ];
    return {
      name,
      count: dispatches.length / steps.length,
      msPerStep: ns / steps.length / 1e6,
      ...(gigabytesPerSecond !== undefined && { gigabytesPerSecond }),
      ...(teraflopPerSecond !== undefined && { teraflopPerSecond }),
      ...(shares.length > 0 && { ceilingShare: Math.max(...shares) }),
    };
  });
  return figures.sort((a, b) => b.msPerStep - a.msPerStep);
}
