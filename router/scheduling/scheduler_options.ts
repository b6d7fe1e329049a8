/** What an operator may decide about the scheduler, with its defaults. Plain data; knows nothing of how it is used. */

import type { ConstraintHost } from "./constraint.ts";
import type { SchedulerObserver } from "./scheduler_observer.ts";
import type { Sequence } from "./sequence.ts";
import type { PlanLimits } from "./step_planner.ts";

/** Everything left out has a default. */
export interface SchedulerOptions extends Partial<PlanLimits> {
  /** Requests that may wait beside those that run. @default 256 */
  readonly maxQueued?: number;
  /** How long a request may wait for its first pages, in milliseconds. @default 120000 */
  readonly queueTimeoutMs?: number;
  /** Events that may wait for a slow reader before its sequence is paused. @default 256 */
  readonly maxUnread?: number;
  /** How long a broken group may take to come back, in milliseconds. @default 60000 */
  readonly recoverMs?: number;
  /** Follows answers that have a grammar. @default such requests are refused */
  readonly constraints?: ConstraintHost;
  /** Numbers requests as they arrive: one for all schedulers that hand sequences over to each other. @default its own */
  readonly arrivals?: () => number;
  /**
   * A sequence cannot go on with this group: it did not come back in time, or not as it was.
   * @returns whether the sequence was handed over instead of ending with an error
   */
  readonly onAbandoned?: (sequence: Sequence) => boolean;
  /** @default none */
  readonly observer?: SchedulerObserver;
}

/** Counts from 0. */
export function counter(): () => number {
  let next = 0;
  return () => next++;
}

/** 32 decode rows in a step; prefill adds 50 ms to it, or takes 500 ms when nothing decodes. */
export const DEFAULTS = {
  onAbandoned: () => false,
  maxBatch: 32,
  sharedPrefillMs: 50,
  alonePrefillMs: 500,
  maxBypassMs: 10_000,
  maxQueued: 256,
  queueTimeoutMs: 120_000,
  maxUnread: 256,
  recoverMs: 60_000,
} as const;
