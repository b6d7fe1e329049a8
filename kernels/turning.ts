/**
 * Waiting for promises that settle only while the event loop turns: Dawn's are settled by callbacks that it queues for the
 * next turn, and with nothing else to do the loop sleeps before that turn (seen: seconds, until some other event).
 */

import { setImmediate } from "node:timers";

/** As long as most steps of a small model take: the loop turns without pause, so that a wait ends within microseconds. */
const EAGER_MS = 4;
const PAUSE_MS = 1;

/** Awaits a promise, and keeps the event loop turning until it has settled. */
export async function whileTurning<T>(pending: Promise<T>): Promise<T> {
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  pending.then(settle, settle);
  const eagerUntil = performance.now() + EAGER_MS;
  // A settled promise needs a microtask to say so.
  await Promise.resolve();
  while (!isSettled) {
    await new Promise<void>((resolve) => {
      if (performance.now() < eagerUntil) setImmediate(resolve);
      else setTimeout(resolve, PAUSE_MS);
    });
  }
  return await pending;
}
