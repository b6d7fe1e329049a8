/**
 * Who the workers of a group are, as far as can be known without asking them. Each way to find workers is one
 * implementation of the interface here; a group follows whichever it is given. Dials no one.
 */

import type { LoadRequest } from "../../../workers/engine_host.ts";
import type { WorkerSource } from "../worker_source.ts";

/** A worker that belongs to the group. */
export interface MemberPlan {
  /** Identifies it, and stays the same when it is started again in the same place. */
  readonly key: string;
  /** Where it is, for people; undefined when there is nothing to say. */
  readonly place?: string;
  readonly source: WorkerSource;
  readonly load: LoadRequest;
  /** Why it is not even tried, known without asking it: such as another version of the protocol. */
  readonly refusal?: string;
}

/** What a membership reports. */
export interface MembershipListener {
  /** All workers there are now, in the order in which they take their places; called at every change. */
  onMembers(plans: readonly MemberPlan[]): void;
  /** Why nothing new can be learnt at present; undefined once it can again. Until then what was reported last holds. */
  onTrouble(reason: string | undefined): void;
}

/** A way to find workers. */
export interface Membership {
  /** For people, e.g. `dns:workers.example:8100`. */
  readonly origin: string;
  /**
   * Whether workers may come and go. Then a group does not wait for one that is away while others are there, and it
   * never ends for want of workers.
   */
  readonly isOpen: boolean;
  /** Reports who is there until the signal is aborted; never rejects, and leaves nothing running behind. */
  watch(listener: MembershipListener, signal: AbortSignal): Promise<void>;
}

/** The way to a worker that was found at an address. */
export type PlanMember = (found: {
  readonly address: { readonly hostname: string; readonly port: number };
  readonly name?: string;
  readonly refusal?: string;
}) => MemberPlan;

/** Workers that are named once and for all: those that the router starts, and those of a list. */
export function fixedMembership(members: readonly Omit<MemberPlan, "key">[], origin = "a list"): Membership {
  const plans = members.map((member, index) => ({ key: String(index), ...member }));
  return {
    origin,
    isOpen: false,
    watch(listener) {
      listener.onMembers(plans);
      return Promise.resolve();
    },
  };
}
