/**
 * One life (epoch) of the group and the page accounts that are good for just as long. Notices when a life ends, sends
 * everyone back to waiting, and gives the group a bounded time to come back. Knows the group's state and who lived on
 * it; knows nothing of steps.
 */

import type { CodedError } from "../../kernels/errors.ts";
import { longestContext } from "./capacity.ts";
import { RequestError } from "../errors.ts";
import type { Group, ModelFacts } from "../group/group.ts";
import { PageLedger } from "./page_ledger.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";

/** What the owner does when a life begins or ends. */
export interface ResidenceHooks {
  /** A new life began; the group may be smaller than before. */
  readonly onSettled: (model: ModelFacts) => void;
  /** It ran and lost all its K/V; it waits now. */
  readonly onLost: (sequence: Sequence, error: CodedError) => void;
  /** It waits for a group that does not come back, or not as it was. */
  readonly onStranded: (sequence: Sequence, error: CodedError) => void;
}

interface Home {
  readonly epoch: number;
  readonly ledger: PageLedger;
}

/** Where the sequences of a roster live. */
export class Residence {
  readonly #group: Group;
  readonly #roster: Roster;
  readonly #recoverMs: number;
  readonly #hooks: ResidenceHooks;
  #home: Home | undefined;
  /** The group may call itself ready for a moment after a step has shown that it is not. */
  #lostEpoch: number | undefined;
  #recovery: ReturnType<typeof setTimeout> | undefined;

  constructor(group: Group, roster: Roster, options: ResidenceHooks & { readonly recoverMs: number }) {
    this.#group = group;
    this.#roster = roster;
    this.#recoverMs = options.recoverMs;
    this.#hooks = options;
  }

  /** The accounts of the current life; undefined while there is none. */
  get ledger(): PageLedger | undefined {
    return this.#home?.ledger;
  }

  /** Catches up with the group. @returns the accounts to plan with, undefined while the group is not ready */
  follow(): PageLedger | undefined {
    const state = this.#group.state;
    if (state.kind === "ready" && state.epoch === this.#home?.epoch) return this.#home.ledger;
    const reason = state.kind === "broken"
      ? "the workers failed for good"
      : state.kind === "closed"
      ? "the group is closed"
      : "its worker was lost";
    if (this.#home !== undefined) this.lose(new RequestError("worker_lost", `Cannot finish request: ${reason}`));
    // Neither comes back.
    if (state.kind === "closed" || state.kind === "broken") this.#strand(reason);
    if (state.kind !== "ready" || state.epoch === this.#lostEpoch) return undefined;
    return this.#settle(state.epoch, state.model);
  }

  /**
   * The life is over: sequences that ran wait for the next one.
   * @param cause what the group said: it may speak of processes and addresses, so clients are told the code alone
   */
  lose(cause: CodedError): void {
    const [code, why] = cause.code === "deadline_exceeded"
      ? ["deadline_exceeded", "the workers did not answer in time"] as const
      : ["worker_lost", "a worker was lost"] as const;
    const error = new RequestError(code, `Cannot finish request: ${why}`, { cause });
    this.#lostEpoch = this.#home?.epoch;
    this.#home = undefined;
    for (const sequence of this.#roster.reset()) this.#hooks.onLost(sequence, error);
    clearTimeout(this.#recovery);
    this.#recovery = undefined;
    if (this.#roster.waiting.length === 0) return;
    const late = `the group did not come back within ${this.#recoverMs} ms after ${why}`;
    this.#recovery = setTimeout(() => this.#strand(late), this.#recoverMs);
  }

  /** Stops waiting for the group. */
  close(): void {
    clearTimeout(this.#recovery);
  }

  #settle(epoch: number, model: ModelFacts): PageLedger {
    clearTimeout(this.#recovery);
    this.#home = { epoch, ledger: new PageLedger(model.slices) };
    this.#hooks.onSettled(model);
    const longest = longestContext(model);
    for (const sequence of [...this.#roster.waiting]) {
      const reason = unsuitable(sequence, model, longest);
      if (reason !== undefined) this.#hooks.onStranded(sequence, unavailable(reason));
    }
    return this.#home.ledger;
  }

  #strand(reason: string): void {
    for (const sequence of [...this.#roster.waiting]) this.#hooks.onStranded(sequence, unavailable(reason));
  }
}

/** Why a sequence cannot go on with a group that came back, if so. */
function unsuitable({ model, request }: Sequence, now: ModelFacts, longest: number): string | undefined {
  if (model.digest !== now.digest) return "the group came back with another model";
  const { promptTokens, maxTokens } = request;
  if (promptTokens.length + maxTokens <= longest) return undefined;
  const asked = `${promptTokens.length} prompt tokens + ${maxTokens} to generate`;
  return `${asked} exceed the context of ${longest} tokens that the group came back with`;
}

function unavailable(reason: string): RequestError {
  return new RequestError("group_unavailable", `Cannot finish request: ${reason}`);
}
