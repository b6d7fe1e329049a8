/** A group whose steps have deadlines that a test gives, and which says how long each took. */

import type { Group } from "../../router/group/group.ts";

/** What a test sets and sees. */
export interface StepTimes {
  /** Of the next step. */
  readonly deadlineMs: () => number;
  readonly onTook: (ms: number) => void;
}

/** Stands before a group. */
export function timedGroup(group: Group, { deadlineMs, onTook }: StepTimes): Group {
  return {
    get state() {
      return group.state;
    },
    get stepsInFlight() {
      return group.stepsInFlight;
    },
    ...(group.selections === undefined ? {} : { selections: group.selections }),
    onState: (listener) => group.onState(listener),
    run: async (step, traceparents, late) => {
      const startMs = performance.now();
      const result = await group.run({ ...step, deadlineMs: deadlineMs() }, traceparents, late);
      onTook(performance.now() - startMs);
      return result;
    },
    close: () => group.close(),
  };
}
