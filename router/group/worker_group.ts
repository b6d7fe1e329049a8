/**
 * A group of workers: keeps each going, forms them again whenever something was lost, and runs steps on them. What the
 * scheduler sees is the state: loading, ready under an epoch, broken for good, or closed.
 * Knows members and epochs; knows nothing of requests.
 */

import type { SparseExchange } from "../../engine/replica_plan.ts";
import { PageMap } from "../../engine/page_map.ts";
import { warmUp } from "../../engine/warm_up.ts";
import { CodedError } from "../../kernels/errors.ts";
import type { LateMasks, Step, StepResult } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import { ExchangeChoice } from "./exchange_choice.ts";
import { type Breach, GroupEpoch } from "./group_epoch.ts";
import { Gathering } from "./gathering.ts";
import type { Group, GroupState, ModelInfo } from "./group.ts";
import { computesAlike, idleMatrices, modelOf, usesMatrices, warmUpMs } from "./group_info.ts";
import { Members, type MembershipReport, type Present } from "./members.ts";
import type { Membership } from "./membership/membership.ts";
import { RESTART_NUMBERS, type RestartNumbers, RestartPolicy } from "./restart_policy.ts";
import { SelectionRecord } from "./selection_record.ts";
import { PATIENCE, type Patience } from "./worker_client.ts";

/** What a group is made of. */
export interface WorkerGroupOptions {
  /** Who its workers are; the first that is there leads. */
  readonly membership: Membership;
  /** Fewer do not form a group. @default 1 */
  readonly minWorkers?: number;
  /** Name under which clients ask for the model. */
  readonly modelId: string;
  /** How sparse layers reach what other workers hold. @default "auto" */
  readonly sparseExchange?: SparseExchange;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** @default PATIENCE */
  readonly patience?: Patience;
  /** Of workers whose source has none, and of the group when it breaks without losing a worker. @default RESTART_NUMBERS */
  readonly restarts?: RestartNumbers;
  /** How long a step that is running at `close` may take. @default 5000 */
  readonly drainMs?: number;
  /** How long a group that was never formed waits for listed workers that cannot be used as they are. @default 60000 */
  readonly hopelessMs?: number;
  /** How long workers of an open membership that are there wait for others that are on their way. @default 5000 */
  readonly gatherMs?: number;
}

const [DRAIN_MS, HOPELESS_MS, GATHER_MS] = [5000, 60_000, 5000] as const;
const CLOSED = "Cannot finish step: the group is closed";

/** The workers of a group, supervised from its making until `close`. */
export class WorkerGroup implements Group {
  /** What was chosen last for each sequence; with one worker, only of spans that report it: its selection stays on its GPU. */
  readonly selections: SelectionRecord = new SelectionRecord();
  readonly #options: WorkerGroupOptions;
  readonly #members: Members;
  readonly #breaches: RestartPolicy;
  readonly #listeners = new Set<(state: GroupState) => void>();
  readonly #closing = new AbortController();
  readonly #supervision: Promise<unknown>;
  #state: GroupState = { kind: "loading", progress: 0 };
  #current: GroupEpoch | undefined;
  #epoch = 1;
  /** Running while the group waits before it is formed again. */
  #pause: ReturnType<typeof setTimeout> | undefined;
  /** Running since no worker could be used, while none ever could. */
  #hopeless: ReturnType<typeof setTimeout> | undefined;
  readonly #gathering: Gathering;
  /** Of the epoch that ended last. */
  #served: ModelInfo | undefined;
  #isPlanned = false;

  /** Starts the workers at once; `onState` reports how it goes. */
  constructor(options: WorkerGroupOptions) {
    this.#options = options;
    this.#breaches = new RestartPolicy(options.restarts);
    // Workers of a list are waited for until they are given up.
    const gatherMs = options.membership.isOpen ? options.gatherMs ?? GATHER_MS : undefined;
    this.#gathering = new Gathering(gatherMs, () => this.#consider());
    this.#members = new Members({
      membership: options.membership,
      epoch: () => this.#epoch,
      onChange: () => this.#consider(),
      log: options.log,
      patience: options.patience ?? PATIENCE,
      restarts: options.restarts,
    });
    this.#supervision = this.#members.follow(this.#closing.signal);
    // A membership that looks workers up has reported nothing yet.
    if (this.#members.all.length === 0) this.#consider();
  }

  get state(): GroupState {
    return this.#state;
  }

  get stepsInFlight(): number {
    return this.#current?.stepsInFlight ?? 1;
  }

  /** Of all members, in their order: whether each is there and has loaded the model. */
  get workersUp(): readonly boolean[] {
    return this.#members.all.map(({ state }) => state.kind === "present");
  }

  /** Every member, how it is, and why. */
  get members(): MembershipReport {
    return this.#members.report(this.#served?.digest);
  }

  /** See `Group`; a listener is not called with the present state. */
  onState(listener: (state: GroupState) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * See `Group`; `step.deadlineMs` counts from the call.
   * @throws {CodedError} `group_unavailable` when the group is not ready, beside what `Group` names
   */
  async run(step: Step, traceparents: readonly string[], late?: LateMasks): Promise<StepResult> {
    const current = this.#current;
    if (this.#state.kind !== "ready" || current === undefined) {
      throw new RequestError("group_unavailable", `Cannot run step ${step.index}: the group is ${this.#state.kind}`);
    }
    const result = await current.run(step, traceparents, late);
    this.selections.report(step, result);
    return result;
  }

  async close(): Promise<void> {
    this.#enter({ kind: "closed" });
    this.#listeners.clear();
    clearTimeout(this.#pause);
    clearTimeout(this.#hopeless);
    this.#gathering.end();
    // Workers that share a step must all be there until it has ended.
    const late = setTimeout(() => this.#current?.dissolve(CLOSED), this.#options.drainMs ?? DRAIN_MS);
    await this.#current?.idle();
    clearTimeout(late);
    this.#closing.abort();
    await this.#supervision;
  }

  /** Looks at the members after anything has changed, and forms the group when no more is to come. */
  #consider(): void {
    if (this.#isOver || this.#pause !== undefined) return;
    const present = this.#members.fit(this.#served?.digest);
    if (this.#current !== undefined) return this.#reconsider(this.#current, present);
    this.#members.release();
    if (this.#members.isAnyStarting && (present.length === 0 || !this.#gathering.hasWaited())) {
      return this.#load({ progress: this.#members.progress });
    }
    if (present.length === 0) return this.#giveUp();
    const { minWorkers = 1 } = this.#options;
    const reason = this.#members.disagreement();
    if (reason !== undefined) return this.#enter({ kind: "broken", reason });
    if (present.length < minWorkers) {
      return this.#load({ progress: 1, reason: `${present.length} of at least ${minWorkers} workers are there` });
    }
    this.#form(present);
  }

  /** A group that is formed forms again for a worker that has come, or that leaves; not for one that is on its way. */
  #reconsider(current: GroupEpoch, present: readonly Present[]): void {
    if (current.clients.some((client) => this.#members.isLeaving(client))) {
      return this.#end(current, "a worker leaves, and the group forms again");
    }
    const isAnyOut = present.some(({ client }) => !current.has(client));
    if (!isAnyOut || present.length <= current.clients.length) return;
    if (this.#options.membership.isOpen && this.#members.isAnyStarting && !this.#gathering.hasWaited()) return;
    this.#end(current, "a worker has come, and the group forms again");
  }

  /** Ends an epoch although nothing went wrong, after the running step: no sequence loses a row. */
  #end(current: GroupEpoch, reason: string): void {
    const message = `Cannot finish step: ${reason}`;
    if (this.#state.kind === "ready") current.dissolveWhenIdle(message);
    else current.dissolve(message);
  }

  get #isOver(): boolean {
    return this.#state.kind === "closed" || this.#state.kind === "broken";
  }

  async #form(present: readonly Present[]): Promise<void> {
    this.#gathering.end();
    const workers = present.map(({ info: { kvPages }, ...worker }) => ({ ...worker, kvPages }));
    const [epoch, { sparseExchange = "states" }] = [this.#epoch, this.#options];
    const alike = computesAlike(present);
    const forming = new GroupEpoch({
      epoch,
      workers,
      selections: this.selections,
      matrix: usesMatrices(present),
      alike,
      replicaPages: Math.min(...present.map(({ info }) => info.replicaPages)),
      sparseExchange,
      exchangeChoice: sparseExchange === "auto" ? new ExchangeChoice(present[0]?.info.roles, alike) : undefined,
      onBroken: (breach) => this.#leave(forming, breach),
    });
    this.#current = forming;
    if (!await forming.form() || this.#isOver) return;
    if (!await this.#warmUp(forming, present)) return;
    const { length: all } = this.#members.all;
    if (all > workers.length) this.#options.log(`The group goes on with ${workers.length} of ${all} workers`);
    const idle = idleMatrices(present);
    if (idle !== undefined) this.#options.log(idle);
    this.#served = modelOf(present, this.#options.modelId);
    this.#enter({ kind: "ready", epoch, model: this.#served, ...(this.#isPlanned ? { isPlanned: true } : {}) });
    // Members that came or left meanwhile were not looked at.
    this.#consider();
  }

  /** Runs the first steps of a group, whose exchanges no worker could warm up alone. @returns whether it is still whole */
  async #warmUp(forming: GroupEpoch, present: readonly Present[]): Promise<boolean> {
    const { measured, ...info } = modelOf(present, this.#options.modelId);
    if (present.length === 1 || measured.length === 0) return true;
    const run = (step: Step) => forming.run({ ...step, deadlineMs: warmUpMs(measured) }, []);
    const startMs = performance.now();
    this.#load({ progress: 1, reason: "the group runs its first steps" });
    try {
      await warmUp({ info: { ...info, measured }, run }, new PageMap(info.slices));
      this.#options.log(`The group's first steps took ${Math.round(performance.now() - startMs)} ms`);
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      // A lost worker has ended the epoch; without a step that was refused the group can do.
      this.#options.log(`Cannot warm the group up: ${error.message}`);
    }
    return this.#current === forming && !this.#isOver;
  }

  /** Ends an epoch, before the callers learn that a step failed. */
  #leave(ending: GroupEpoch, breach: Breach): void {
    if (this.#current !== ending) return;
    this.#current = undefined;
    this.#epoch++;
    if (this.#isOver) return;
    this.#isPlanned = breach.isPlanned === true;
    // Workers that are there have waited already, or are not to wait for it.
    if (this.#isPlanned) this.#gathering.skip();
    this.#load({ progress: 0 });
    // A member that is lost says so itself, and asks for the next forming when it is there again.
    if (breach.culprits.length > 0) return;
    const delayMs = this.#delayMs(breach);
    if (delayMs === undefined) return this.#enter({ kind: "broken", reason: breach.error.message });
    const { length: members } = this.#members.fit(this.#served?.digest);
    // What looks like a lost link may be a lost worker, which shows a moment later.
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#members.fit(this.#served?.digest).length === members) {
        this.#options.log(`The group is formed again: ${breach.error.message}`);
      }
      this.#consider();
    }, delayMs);
  }

  /** Until the group is formed again; undefined: it is not. Where workers come and go it always is. */
  #delayMs({ isPlanned }: Breach): number | undefined {
    const { membership, restarts = RESTART_NUMBERS } = this.#options;
    if (isPlanned) return 0;
    return this.#breaches.failed(performance.now()) ?? (membership.isOpen ? restarts.longestDelayMs : undefined);
  }

  /** No worker is there, and none is on the way. */
  #giveUp(): void {
    const reason = this.#members.absence(this.#served?.digest);
    if (!this.#members.mayReturn) return this.#enter({ kind: "broken", reason });
    this.#load({ progress: 0, reason });
    if (this.#isHopeless) {
      this.#hopeless ??= setTimeout(() => this.#endHopeless(), this.#options.hopelessMs ?? HOPELESS_MS);
    }
  }

  get #isHopeless(): boolean {
    if (this.#served !== undefined || this.#options.membership.isOpen) return false;
    return this.#members.all.every(({ state }) => state.kind === "away" && state.isFinal);
  }

  /** What was in the way may have changed meanwhile. */
  #endHopeless(): void {
    this.#hopeless = undefined;
    if (this.#isOver || !this.#isHopeless || this.#state.kind !== "loading") return;
    this.#enter({ kind: "broken", reason: this.#state.reason ?? "Cannot form group: no worker can be used" });
  }

  #load(state: { readonly progress: number; readonly reason?: string }): void {
    this.#enter({
      kind: "loading",
      ...state,
      ...(this.#served === undefined ? {} : { model: this.#served }),
      ...(this.#isPlanned ? { isPlanned: true } : {}),
    });
  }

  #enter(state: GroupState): void {
    if (this.#state.kind === "closed") return;
    this.#state = state;
    for (const listener of this.#listeners) listener(state);
  }
}
