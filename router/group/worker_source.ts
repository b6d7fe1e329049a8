/**
 * Where the workers of a group come from: processes that the router starts, or workers that run elsewhere and are joined.
 * Knows how to get one and how to let go of it; knows nothing of what it does.
 */

import type { Address } from "../../workers/protocol.ts";
import type { TlsTrust } from "../../workers/transport.ts";
import type { RestartNumbers } from "./restart_policy.ts";

/** A worker that listens; `stop` must be called. A `WorkerProcess` is one. */
export interface WorkerHost {
  readonly address: Address;
  /** What both ends of its connections must know. */
  readonly secret: string | undefined;
  /** Whose certificate it may show; undefined: in clear text. */
  readonly trust?: TlsTrust | undefined;
  /** How it ended and what it said last, if that is known. */
  readonly lastWords: string | undefined;
  /** Resolves with whether it is known to have ended by then. */
  endsWithin(ms: number): Promise<boolean>;
  /** Ends it, if that is in the router's power, after giving it time to end by itself. */
  stop(graceMs: number): Promise<void>;
}

/** Gets a worker, as often as one is needed. */
export interface WorkerSource {
  /** @param signal gives up */
  readonly start: (signal: AbortSignal) => Promise<WorkerHost>;
  /** When to stop trying. */
  readonly restarts?: RestartNumbers;
  /** The worker is started again elsewhere, so it may come back after it was given up. */
  readonly returns: boolean;
}

/** Patience with a worker that has to be started elsewhere: given up, for now, after half a minute. */
const JOIN_NUMBERS: RestartNumbers = {
  firstDelayMs: 200,
  longestDelayMs: 5000,
  failures: 12,
  windowMs: 60_000,
};

const UNSEEN = false;

/** A process on this machine. */
export function spawnedWorker(launch: WorkerSource["start"]): WorkerSource {
  return { start: launch, returns: false };
}

/** A worker that runs elsewhere. */
export function joinedWorker(address: Address, secret: string | undefined, trust?: TlsTrust): WorkerSource {
  const host: WorkerHost = {
    address,
    secret,
    trust,
    lastWords: undefined,
    // Whether it has ended cannot be seen from here.
    endsWithin: () => Promise.resolve(UNSEEN),
    stop: () => Promise.resolve(),
  };
  return { start: () => Promise.resolve(host), restarts: JOIN_NUMBERS, returns: true };
}
