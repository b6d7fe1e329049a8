/**
 * Turns of the event loop for Dawn, as many as it needs and no more. Its promises settle in callbacks that it queues by
 * `setImmediate`, one for each turn while anything is awaited. With nothing else to do the loop sleeps before that turn
 * (seen: seconds, until some other event). And each callback is a new native function whose release costs Deno a search
 * through all of them: 13,000 turns a second kept the thread busy with nothing else, at 30 s for a prompt that takes 5 s.
 */

import { setImmediate } from "node:timers";
import type { GpuTraits } from "./provider.ts";

/** As long as most steps of a small model take: the loop turns without pause, so that a wait ends within microseconds. */
const EAGER_MS = 4;
/** Between two of Dawn's callbacks at the start of a wait, and later. */
const EAGER_GAP_MS = 0.1;
const PAUSE_MS = 1;

let eagerUntilMs = 0;
let lastCallbackMs = 0;

/** How to wait for the promises of a provider. */
export function waiterFor(
  { settlesByTurns }: Pick<GpuTraits, "settlesByTurns">,
): <T>(pending: Promise<T>) => Promise<T> {
  return settlesByTurns ? whileTurning : (pending) => pending;
}

/** Awaits a promise, and keeps the event loop turning until it has settled. */
export async function whileTurning<T>(pending: Promise<T>): Promise<T> {
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  pending.then(settle, settle);
  const untilMs = performance.now() + EAGER_MS;
  eagerUntilMs = untilMs;
  // A settled promise needs a microtask to say so.
  await Promise.resolve();
  while (!isSettled) {
    await new Promise<void>((resolve) => {
      if (performance.now() < untilMs) setImmediate(resolve);
      else setTimeout(resolve, PAUSE_MS);
    });
  }
  return await pending;
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
  if (performance.now() >= eagerUntilMs) {
    setTimeout(run, PAUSE_MS);
    return;
  }
  const dueMs = lastCallbackMs + EAGER_GAP_MS;
  const turn = () => {
    if (performance.now() >= dueMs) run();
    else setImmediate(turn);
  };
  setImmediate(turn);
}
