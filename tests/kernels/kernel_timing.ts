/** The clock of the kernel bench: GPU timestamps of repeated calls on a loaded card. Knows no kernel. */

import type { Ceilings } from "../../kernels/ceilings.ts";
import { warmClocks } from "../../kernels/ceilings.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { PassTimer } from "../../kernels/timestamps.ts";

/** What kernels are timed on, and what their shares are of. */
export interface KernelTiming {
  readonly commands: Commands;
  readonly ceilings: Ceilings;
  /** Whether a call of that name is to be timed. */
  readonly isWanted: (name: string) => boolean;
}

/** A call, and what it must read and compute at least. */
export interface TimedCall {
  readonly name: string;
  /** Records one call; numbered, so that it can rotate through its operands. */
  readonly record: (call: number) => void;
  readonly bytes?: number;
  readonly flop?: number;
}

/** One line of the bench. */
export interface KernelFigures {
  readonly name: string;
  /** Median of the calls, all dispatches of a call together. */
  readonly ms: number;
  readonly gigabytesPerSecond?: number;
  readonly teraflopPerSecond?: number;
  /** Of the ceiling that binds it. */
  readonly ceilingShare?: number;
}

/** The card is loaded with the very kernel for so long, until its clocks are up; then calls are timed for so long. */
const LOAD_MS = { software: 0, hardware: 250 } as const;
const ROUND_MS = { software: 0, hardware: 60 } as const;
const MIN_CALLS = 3;
const MAX_CALLS = 200;

/** Times one call. @returns its line, or none where it is not wanted */
export async function timeKernel(
  { commands, ceilings, isWanted }: KernelTiming,
  call: TimedCall,
): Promise<readonly KernelFigures[]> {
  if (!isWanted(call.name)) return [];
  const { gpu } = commands;
  const kind = gpu.info.software ? "software" : "hardware";
  await warmClocks(commands, () => call.record(0), LOAD_MS[kind]);
  const timer = new PassTimer(gpu, "dispatch");
  commands.observe(timer);
  try {
    const once = (await callsNs({ commands, timer }, call, 1))[0] ?? NaN;
    const calls = Math.max(MIN_CALLS, Math.min(MAX_CALLS, Math.round(ROUND_MS[kind] * 1e6 / once)));
    const times = (await callsNs({ commands, timer }, call, calls)).sort((a, b) => a - b);
    return [figuresOf(call, times[times.length >> 1] ?? NaN, ceilings)];
  } finally {
    commands.observe(undefined);
    timer.close();
  }
}

/** Nanoseconds of each call: its passes together. */
async function callsNs(
  { commands, timer }: { readonly commands: Commands; readonly timer: PassTimer },
  { record }: TimedCall,
  calls: number,
): Promise<number[]> {
  for (let i = 0; i < calls; i++) record(i);
  commands.submit();
  const passes = await timer.read();
  const each = passes.length / calls;
  return Array.from(
    { length: calls },
    (_, i) => passes.slice(i * each, (i + 1) * each).reduce((sum, { startNs, endNs }) => sum + endNs - startNs, 0),
  );
}

function figuresOf({ name, bytes, flop }: TimedCall, ns: number, ceilings: Ceilings): KernelFigures {
  const gigabytesPerSecond = bytes === undefined ? undefined : bytes / ns;
  const teraflopPerSecond = flop === undefined ? undefined : flop / ns / 1e3;
  const shares = [
    (gigabytesPerSecond ?? 0) / ceilings.readGigabytesPerSecond,
    (teraflopPerSecond ?? 0) / ceilings.fmaTeraflopPerSecond,
  ];
  return {
    name,
    ms: ns / 1e6,
    ...(gigabytesPerSecond !== undefined && { gigabytesPerSecond }),
    ...(teraflopPerSecond !== undefined && { teraflopPerSecond }),
    ...((bytes ?? flop) !== undefined && { ceilingShare: Math.max(...shares) }),
  };
}
