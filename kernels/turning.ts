/**
 * Turns of the event loop for Dawn, as many as it needs and no more. Its promises settle in callbacks that it queues by
 * `setImmediate`, one for each turn while anything is awaited. With nothing else to do the loop sleeps before that turn
 * (seen: seconds, until some other event). And each callback is a new native function whose release costs Deno a search
 * through all of them: 13,000 turns a second kept the thread busy with nothing else, at 30 s for a prompt that takes 5 s.
 *
 * So the loop turns without pause where a wait is likely to end: at its start, and about as long after it as the wait before
 * lasted, since one decode step takes as long as the next. In between, and beyond, it pauses.
 */

import { setImmediate } from "node:timers";
import type { GpuTraits } from "./provider.ts";

/** As long as most steps of a small model take: the loop turns without pause, so that a wait ends within microseconds. */
const EAGER_MS = 4;
/** The same from so long before the time that the wait before took until so long after it; a timer of 1 ms takes 2. */
const EARLY_MS = 3;
const LATE_MS = 2;
/** Between two of Dawn's callbacks where the loop turns without pause, and elsewhere. */
const EAGER_GAP_MS = 0.1;
const PAUSE_MS = 1;

/** When the waits began that are not over. */
const waits = new Set<{ readonly startMs: number }>();
/** What Dawn queued while no wait was likely to end, by the timers that it pauses for. */
const paused = new Map<ReturnType<typeof setTimeout>, () => void>();
/** How long the last one took that was not over at once. */
let usualMs = 0;
let lastCallbackMs = 0;
/** How many wait patiently, and what keeps the loop turning for them. */
let pausing = 0;
let pulse: ReturnType<typeof setInterval> | undefined;

/** Whether a wait of that age is likely to end soon, given how long the last one took. */
export function endsSoon(ageMs: number, usualMs: number): boolean {
  return ageMs < EAGER_MS || (ageMs > usualMs - EARLY_MS && ageMs < usualMs + LATE_MS);
}

function isEager(nowMs: number): boolean {
  return waits.values().some(({ startMs }) => endsSoon(nowMs - startMs, usualMs));
}

/** How a promise is awaited. */
export interface WaitOptions {
  /** Whether a millisecond more does not matter: the loop pauses from the start. @default false */
  readonly isPatient?: boolean;
}

/** How to wait for the promises of a provider. */
export function waiterFor(
  { settlesByTurns }: Pick<GpuTraits, "settlesByTurns">,
): <T>(pending: Promise<T>, options?: WaitOptions) => Promise<T> {
  return settlesByTurns ? whileTurning : (pending) => pending;
}

/** Awaits a promise, and keeps the event loop turning until it has settled. */
export async function whileTurning<T>(pending: Promise<T>, { isPatient = false }: WaitOptions = {}): Promise<T> {
  if (isPatient) return await whilePausing(pending);
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  pending.then(settle, settle);
  const wait = { startMs: performance.now() };
  waits.add(wait);
  // Dawn queued its callback before it returned the promise: no wait had begun then.
  resumePaused();
  // A settled promise needs a microtask to say so.
  await Promise.resolve();
  while (!isSettled) {
    await new Promise<void>((resolve) => {
      if (isEager(performance.now())) setImmediate(resolve);
      else setTimeout(resolve, PAUSE_MS);
    });
  }
  waits.delete(wait);
  const tookMs = performance.now() - wait.startMs;
  if (tookMs > EAGER_MS) usualMs = tookMs;
  return await pending;
}

/** The same with a turn a millisecond, one for all that wait so: many may, for long. */
async function whilePausing<T>(pending: Promise<T>): Promise<T> {
  pausing++;
  pulse ??= setInterval(() => {}, PAUSE_MS);
  try {
    return await pending;
  } finally {
    if (--pausing === 0) {
      clearInterval(pulse);
      pulse = undefined;
    }
  }
}

/**
 * Puts `paced` in the place of the global `setImmediate`, where Dawn looks for it at every turn. Called before Dawn is
 * loaded; for all else that uses the global, an immediate only comes up to a millisecond later.
 */
export function paceGlobalImmediates(): void {
  Object.defineProperty(globalThis, "setImmediate", { value: paced, configurable: true, writable: true });
}

/** Calls back in a later turn, but not sooner after the last time than the gap that belongs to the age of the wait. */
function paced(callback: (...given: unknown[]) => void, ...given: unknown[]): void {
  const run = () => {
    lastCallbackMs = performance.now();
    callback(...given);
  };
  if (isEager(performance.now())) turnUntilDue(run);
  else pause(run);
}

function pause(run: () => void): void {
  const timer = setTimeout(() => {
    paused.delete(timer);
    run();
  }, PAUSE_MS);
  paused.set(timer, run);
}

function resumePaused(): void {
  for (const [timer, run] of paused) {
    clearTimeout(timer);
    turnUntilDue(run);
  }
  paused.clear();
}

/** Turns the loop until the last callback is long enough ago. */
function turnUntilDue(run: () => void): void {
  const dueMs = lastCallbackMs + EAGER_GAP_MS;
  const turn = () => {
    if (performance.now() >= dueMs) run();
    else setImmediate(turn);
  };
  setImmediate(turn);
}
