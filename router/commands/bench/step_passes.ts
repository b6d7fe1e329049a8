/**
 * Timestamps of the passes of steps, of an engine in this process: one step after the other, or each recorded while the one before
 * runs. Knows passes; what a step consists of is the profile's.
 */

import type { Engine } from "../../../engine/engine.ts";
import type { Session, SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { PassTimer, type TimedPass } from "../../../kernels/timestamps.ts";
import { timedRows } from "./steps.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** Decoding with each step recorded while the one before runs. */
export interface AheadFigures {
  /** Mean, from one step to the next. */
  readonly stepMs: number;
  /** Share of that in which the GPU had nothing to do. */
  readonly idleShare: number;
}

/** Steps with timestamps, of each kind of pass: their kernels differ little from step to step. */
export const TIMED_STEPS = 8;

/** Steps that run ahead: timed, and as many before them that are not. */
export const AHEAD_STEPS = 24;

/** Runs steps after one that is not timed. @returns the passes of each */
export async function passesOf(
  { commands }: Engine,
  { unit, run, steps }: {
    readonly unit: PassTimer["unit"];
    readonly run: () => Promise<number>;
    readonly steps: number;
  },
): Promise<readonly (readonly TimedPass[])[]> {
  const timer = new PassTimer(commands.gpu, unit);
  const read: TimedPass[][] = [];
  commands.observe(timer);
  try {
    await run();
    await timer.read();
    for (let i = 0; i < steps; i++) {
      await run();
      read.push(await timer.read());
    }
    return read;
  } finally {
    commands.observe(undefined);
    timer.close();
  }
}

/** Steps that run ahead, after as many that are not timed. */
export async function timedAhead(
  { commands }: Engine,
  { host, session, context }: { readonly host: SessionHost; readonly session: Session; readonly context: number },
  attention: "dense" | "sparse",
): Promise<AheadFigures> {
  const rows = (first: number) => Array.from({ length: AHEAD_STEPS }, (_, i) => ({ attention, from: first + i }));
  await timedRows(host, session, rows(context));
  const timer = new PassTimer(commands.gpu, "pass");
  commands.observe(timer);
  try {
    const steps = await timedRows(host, session, rows(context + AHEAD_STEPS));
    // No step runs beside the first and the last.
    return { stepMs: mean(steps.slice(1, -1).map(({ stepMs }) => stepMs)), idleShare: idleShareOf(await timer.read()) };
  } finally {
    commands.observe(undefined);
    timer.close();
  }
}

/** Share of the time from the first pass to the last that lies between passes. */
export function idleShareOf(passes: readonly TimedPass[]): number {
  const wholeNs = (passes.at(-1)?.endNs ?? 0) - (passes[0]?.startNs ?? 0);
  return wholeNs === 0 ? 0 : 1 - sum(passes.map(durationNs)) / wholeNs;
}

/** Of a pass. */
export function durationNs({ startNs, endNs }: TimedPass): number {
  return endNs - startNs;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
