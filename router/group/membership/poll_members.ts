/** Follows a place that can only be asked who is there, such as a name server: again and again, reporting what changed. */

import { pause } from "../pause.ts";
import type { MembershipListener, PlanMember } from "./membership.ts";

/** A worker that was found. */
export type FoundMember = Parameters<PlanMember>[0];

/** One answer of the place. */
export interface MemberReading {
  /** All that are there, in a lasting order; undefined when the place could not be asked. */
  readonly found?: readonly FoundMember[];
  /** Why it could not. */
  readonly trouble: string | undefined;
}

/** How to follow it. */
export interface MemberPolling {
  readonly read: () => Promise<MemberReading>;
  readonly planOf: PlanMember;
  /** Between two readings. */
  readonly everyMs: number;
  readonly listener: MembershipListener;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** Reads until the signal is aborted; what was found last holds while the place cannot be asked. */
export async function pollMembers({ read, planOf, everyMs, listener, signal }: MemberPolling): Promise<void> {
  let reported: string | undefined;
  while (!signal.aborted) {
    const { found, trouble } = await read();
    if (signal.aborted) return;
    listener.onTrouble(trouble);
    const shown = found === undefined ? reported : JSON.stringify(found);
    if (found !== undefined && shown !== reported) listener.onMembers(found.map(planOf));
    reported = shown;
    await pause(everyMs, signal);
  }
}
