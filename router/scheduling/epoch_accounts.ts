/**
 * The page accounts of the group's current epoch. Notices when the epoch ends, sends its sequences back to waiting, and
 * gives the group a bounded time to come back.
 */

import type { CodedError } from "../../kernels/errors.ts";
import { unsuitable } from "./admission.ts";
import { RequestError } from "../errors.ts";
import type { Group, ModelInfo } from "../group/group.ts";
import { PageLedger } from "./page_ledger.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";

/** What the owner does when an epoch begins or ends. */
export interface EpochHooks {
  /** A new epoch began; the group may be smaller than before. */
  readonly onSettled: (model: ModelInfo) => void;
  /** It ran and lost all its K/V; it waits now. Planned: nothing went wrong, the group only changes. */
  readonly onLost: (sequence: Sequence, error: CodedError, isPlanned: boolean) => void;
  /** It waits for a group that does not come back, or not as it was. */
  readonly onAbandoned: (sequence: Sequence, error: CodedError) => void;
}

interface CurrentEpoch {
  readonly epoch: number;
  readonly ledger: PageLedger;
}

/** The accounts of the epoch that the sequences of a roster run in. */
export class EpochAccounts {
  readonly #group: Group;
  readonly #roster: Roster;
  readonly #recoverMs: number;
  readonly #hooks: EpochHooks;
  #current: CurrentEpoch | undefined;
  /** The group may call itself ready for a moment after a step has shown that it is not. */
  #lostEpoch: number | undefined;
  #recovery: ReturnType<typeof setTimeout> | undefined;

  constructor(group: Group, roster: Roster, options: EpochHooks & { readonly recoverMs: number }) {
    this.#group = group;
    this.#roster = roster;
    this.#recoverMs = options.recoverMs;
    this.#hooks = options;
  }

  /** The accounts of the current epoch; undefined while there is none. */
  get ledger(): PageLedger | undefined {
    return this.#current?.ledger;
  }

  /** Catches up with the group. @returns the accounts to plan with, undefined while the group is not ready */
  follow(): PageLedger | undefined {
    const state = this.#group.state;
    if (state.kind === "ready" && state.epoch === this.#current?.epoch) return this.#current.ledger;
    const reason = state.kind === "broken"
      ? "the workers failed for good"
      : state.kind === "closed"
      ? "the group is closed"
      : "its worker was lost";
    if (this.#current !== undefined) {
      const isPlanned = (state.kind === "loading" || state.kind === "ready") && state.isPlanned === true;
      this.lose(new RequestError("worker_lost", `Cannot finish request: ${reason}`), isPlanned);
    }
    // Sequences that came while the group was being formed again wait no longer for it than the others.
    if (state.kind === "loading" && state.model !== undefined) this.#await("a worker was lost");
    // Neither comes back.
    if (state.kind === "closed" || state.kind === "broken") this.#abandon(reason);
    if (state.kind !== "ready" || state.epoch === this.#lostEpoch) return undefined;
    return this.#settle(state.epoch, state.model);
  }

  /**
   * The epoch is over: sequences that ran wait for the next one.
   * @param cause what the group said: it may name processes and addresses, so clients get the code alone
   */
  lose(cause: CodedError, isPlanned = false): void {
    const [code, why] = cause.code === "deadline_exceeded"
      ? ["deadline_exceeded", "the workers did not answer in time"] as const
      : ["worker_lost", "a worker was lost"] as const;
    const error = new RequestError(code, `Cannot finish request: ${why}`, { cause });
    this.#lostEpoch = this.#current?.epoch;
    this.#current = undefined;
    for (const sequence of this.#roster.reset()) this.#hooks.onLost(sequence, error, isPlanned);
    clearTimeout(this.#recovery);
    this.#recovery = undefined;
    this.#await(why);
  }

  #await(why: string): void {
    if (this.#roster.waiting.length === 0 || this.#recovery !== undefined) return;
    const late = `the group did not come back within ${this.#recoverMs} ms after ${why}`;
    this.#recovery = setTimeout(() => {
      this.#recovery = undefined;
      this.#abandon(late);
    }, this.#recoverMs);
  }

  /** Stops waiting for the group. */
  close(): void {
    clearTimeout(this.#recovery);
  }

  #settle(epoch: number, model: ModelInfo): PageLedger {
    clearTimeout(this.#recovery);
    this.#recovery = undefined;
    this.#current = { epoch, ledger: new PageLedger(model.slices) };
    this.#hooks.onSettled(model);
    for (const sequence of [...this.#roster.waiting]) {
      const reason = unsuitable(sequence, model);
      if (reason !== undefined) this.#hooks.onAbandoned(sequence, unavailable(reason));
    }
    return this.#current.ledger;
  }

  #abandon(reason: string): void {
    for (const sequence of [...this.#roster.waiting]) this.#hooks.onAbandoned(sequence, unavailable(reason));
  }
}

function unavailable(reason: string): RequestError {
  return new RequestError("group_unavailable", `Cannot finish request: ${reason}`);
}
