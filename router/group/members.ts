/**
 * The members of a group as its membership reports them: taken in when they are found, forgotten when they are gone and no
 * connection stands any more. Knows who is there and why others are not; knows nothing of epochs or steps.
 */

import { disagreement, outliers } from "./group_info.ts";
import { Member, type PresentWorker } from "./member.ts";
import type { MemberPlan, Membership } from "./membership/membership.ts";
import type { RestartNumbers } from "./restart_policy.ts";
import type { Patience, WorkerClient } from "./worker_client.ts";

/** What members have in common. */
export interface MembersOptions {
  readonly membership: Membership;
  /** Of the group, for the handshake. */
  readonly epoch: () => number;
  /** Called after every change to any member, or to who is one. */
  readonly onChange: () => void;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  readonly patience: Patience;
  readonly restarts: RestartNumbers | undefined;
}

/** A member that has loaded the model. */
export interface Present extends PresentWorker {
  readonly name: string;
  readonly place: string | undefined;
}

/** A member, for people. */
export interface MemberReport {
  readonly worker: number;
  readonly place?: string;
  /** `left_out`: it is there, but cannot be used with the others as it is. */
  readonly state: "loading" | "present" | "leaving" | "away" | "left_out";
  readonly reason?: string;
}

/** All members, for people. */
export interface MembershipReport {
  /** Where they are looked for. */
  readonly origin: string;
  /** Why the membership cannot be asked at present. */
  readonly trouble?: string;
  readonly found: readonly MemberReport[];
}

interface Entry {
  readonly plan: MemberPlan;
  readonly member: Member;
}

/** See the top of this file. */
export class Members {
  readonly #options: MembersOptions;
  #entries: readonly Entry[] = [];
  #lives = new Set<Promise<void>>();
  #trouble: string | undefined;

  constructor(options: MembersOptions) {
    this.#options = options;
  }

  get all(): readonly Member[] {
    return this.#entries.map(({ member }) => member);
  }

  get isAnyStarting(): boolean {
    return this.all.some(({ state }) => state.kind === "starting");
  }

  /** Share of the loading that is done, over all members. */
  get progress(): number {
    const each = this.all.map(({ state }) => state.kind === "starting" ? state.progress : 1);
    return each.reduce((sum, one) => sum + one, 0) / Math.max(1, each.length);
  }

  /** Why none can be used. @param digest as for `fit` */
  absence(digest: string | undefined): string {
    const isAlone = this.#entries.length === 1;
    const given = this.#reports(digest).flatMap(({ reason }, i) =>
      reason === undefined ? [] : [isAlone ? reason : `${this.all[i]?.name}: ${reason}`]
    );
    return given.join("; ") || `No worker is found at ${this.#options.membership.origin}`;
  }

  /** Whether one may come that is not there now. */
  get mayReturn(): boolean {
    return this.#options.membership.isOpen || this.all.some(({ mayReturn }) => mayReturn);
  }

  /** Follows the membership until the signal is aborted; no process is left behind then. */
  async follow(closing: AbortSignal): Promise<void> {
    const { membership } = this.#options;
    await membership.watch({
      onMembers: (plans) => this.#takeIn(plans, closing),
      onTrouble: (reason) => this.#noteTrouble(reason),
    }, closing);
    while (this.#lives.size > 0) await Promise.all(this.#lives);
  }

  /** All that are there and stay, those that cannot be used with the others included. */
  get #there(): readonly Present[] {
    return this.#entries.flatMap(({ plan, member: { name, state } }) =>
      state.kind === "present" ? [{ name, place: plan.place, ...state.worker }] : []
    );
  }

  /**
   * Those that can form a group, in their order.
   * @param digest of the model that the group served before, if it did
   */
  fit(digest: string | undefined): readonly Present[] {
    const out = this.#outliers(digest);
    return this.#there.filter(({ client }) => !out.has(client));
  }

  /** Lets those go that leave, once no epoch needs them. */
  release(): void {
    for (const { member } of this.#entries) if (member.state.kind === "leaving") member.release();
  }

  isLeaving(client: WorkerClient): boolean {
    return this.#entries.some(({ member: { state } }) => state.kind === "leaving" && state.worker.client === client);
  }

  /** Every member and its state. @param digest as for `fit` */
  report(digest: string | undefined): MembershipReport {
    return {
      origin: this.#options.membership.origin,
      ...(this.#trouble === undefined ? {} : { trouble: this.#trouble }),
      found: this.#reports(digest),
    };
  }

  /** Those that are there and cannot be used with the others, where the group goes on without them; and why. */
  #outliers(digest: string | undefined): ReadonlyMap<WorkerClient, string> {
    if (!this.#options.membership.isOpen) return new Map();
    return new Map([...outliers(this.#there, digest)].map(([{ client }, reason]) => [client, reason]));
  }

  #reports(digest: string | undefined): readonly MemberReport[] {
    const out = this.#outliers(digest);
    return this.#entries.map(({ plan: { place, refusal }, member: { index, state } }) => {
      const about = { worker: index, ...(place === undefined ? {} : { place }) };
      if (refusal !== undefined) return { ...about, state: "left_out", reason: refusal };
      switch (state.kind) {
        case "starting":
          return { ...about, state: "loading" };
        case "away":
          return { ...about, state: "away", reason: state.reason };
        case "leaving":
          return { ...about, state: "leaving" };
        case "present": {
          const reason = out.get(state.worker.client);
          return reason === undefined ? { ...about, state: "present" } : { ...about, state: "left_out", reason };
        }
      }
    });
  }

  /** Why those that are there cannot form a group, where none can be left out. */
  disagreement(): string | undefined {
    return this.#options.membership.isOpen ? undefined : disagreement(this.#there);
  }

  #takeIn(plans: readonly MemberPlan[], closing: AbortSignal): void {
    const known = new Map(this.#entries.map((entry) => [entry.plan.key, entry]));
    const listed = plans.map((plan) => {
      const entry = known.get(plan.key);
      if (entry === undefined || entry.plan.refusal !== plan.refusal) return undefined;
      known.delete(plan.key);
      entry.member.remember();
      return entry;
    });
    for (const [key, { plan, member }] of known) {
      member.forget();
      // It was never dialled: nothing of it is left.
      if (plan.refusal !== undefined) known.delete(key);
    }
    // Those that are not named any more stay as long as their connections do.
    this.#entries = [...listed.filter((entry) => entry !== undefined), ...known.values()];
    const isAlone = !this.#options.membership.isOpen && plans.length === 1;
    const entries = plans.map((plan, i) => listed[i] ?? this.#take(plan, closing, isAlone ? "the worker" : undefined));
    this.#entries = [...entries, ...known.values()];
    this.#options.onChange();
  }

  #take(plan: MemberPlan, closing: AbortSignal, called: string | undefined): Entry {
    const taken = new Set(this.all.map(({ index }) => index));
    const index = [...Array(taken.size + 1).keys()].find((free) => !taken.has(free)) ?? taken.size;
    const { membership, ...options } = this.#options;
    const { source, load, place, refusal } = plan;
    const where = membership.isOpen && place !== undefined ? ` (${place})` : "";
    const name = called ?? `worker ${index}${where}`;
    const member = new Member({ ...options, index, name, source, load, refusal });
    const entry = { plan, member };
    this.#entries = [...this.#entries, entry];
    if (membership.isOpen) {
      options.log(`Worker ${index} is found: ${place ?? plan.key}${refusal ? `; ${refusal}` : ""}`);
    }
    const life = member.supervise(closing).then(() => this.#drop(entry));
    this.#lives.add(life);
    life.finally(() => this.#lives.delete(life));
    return entry;
  }

  /** Its life is over: one that was forgotten is no member any more. */
  #drop(entry: Entry): void {
    if (entry.member.isKnown) return;
    this.#entries = this.#entries.filter((other) => other !== entry);
    this.#options.onChange();
  }

  #noteTrouble(reason: string | undefined): void {
    if (reason !== undefined && this.#trouble === undefined) this.#options.log(reason);
    if (reason === undefined && this.#trouble !== undefined) {
      this.#options.log("The members of the group can be found again");
    }
    this.#trouble = reason;
  }
}
