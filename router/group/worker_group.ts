/**
 * A group of workers: keeps each going, forms them again whenever something was lost, and runs steps on them. What the
 * scheduler sees is the state: loading, ready under an epoch, broken for good, or closed.
 * Knows members and epochs; knows nothing of requests.
 */

import { EngineError } from "../../engine/errors.ts";
import { PageMap } from "../../engine/page_map.ts";
import { warmUp } from "../../engine/warm_up.ts";
import { CodedError } from "../../kernels/errors.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import type { LoadRequest } from "../../workers/engine_host.ts";
import { RequestError } from "../errors.ts";
import { type Breach, GroupEpoch } from "./group_epoch.ts";
import type { Group, GroupState } from "./group.ts";
import { disagreement, idleMatrices, modelOf, usesMatrices } from "./group_info.ts";
import { Member, type PresentWorker } from "./member.ts";
import { type RestartNumbers, RestartPolicy } from "./restart_policy.ts";
import { SelectionRecord } from "./selection_record.ts";
import { PATIENCE, type Patience } from "./worker_client.ts";
import type { WorkerSource } from "./worker_source.ts";

/** What a group is made of. */
export interface WorkerGroupOptions {
  /** Its workers, at least one: where each comes from, and what it is to load; the first that is there leads. */
  readonly members: readonly { readonly source: WorkerSource; readonly load: LoadRequest }[];
  /** Name under which clients ask for the model. */
  readonly modelId: string;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** @default PATIENCE */
  readonly patience?: Patience;
  /** Of workers whose source has none, and of the group when it breaks without losing a worker. @default RESTART_NUMBERS */
  readonly restarts?: RestartNumbers;
  /** How long a step that is running at `close` may take. @default 5000 */
  readonly drainMs?: number;
  /**
   * How long a group that was never formed waits for workers of others that cannot be used as they are: they hold another
   * secret, speak another version, cannot load the model. @default 60000
   */
  readonly hopelessMs?: number;
}

const DRAIN_MS = 5000;
const HOPELESS_MS = 60_000;
/** How long a step may take that warms a group up, beside a multiple of the longest that warmed up a worker. */
const WARM_UP_MS = 8000;
const WARM_UP_FACTOR = 5;
const CLOSED = "Cannot finish step: the group is closed";

/** A member that has loaded the model. */
interface Present extends PresentWorker {
  readonly name: string;
}

/** The workers of a group, started with it and supervised until `close`. */
export class WorkerGroup implements Group {
  /** What was chosen last for each sequence; with one worker, only of spans that report it: its selection stays on its GPU. */
  readonly selections: SelectionRecord = new SelectionRecord();
  readonly #options: WorkerGroupOptions;
  readonly #members: readonly Member[];
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
  #hasFormed = false;
  #running: { readonly index: number; readonly end: Promise<unknown> } | undefined;

  /** Starts the workers at once; `onState` reports how it goes. */
  constructor(options: WorkerGroupOptions) {
    this.#options = options;
    this.#breaches = new RestartPolicy(options.restarts);
    this.#members = options.members.map((member, index) =>
      new Member({
        ...member,
        index,
        name: options.members.length === 1 ? "the worker" : `worker ${index}`,
        epoch: () => this.#epoch,
        onChange: () => this.#consider(),
        log: options.log,
        patience: options.patience ?? PATIENCE,
        restarts: options.restarts,
      })
    );
    this.#supervision = Promise.all(this.#members.map((member) => member.supervise(this.#closing.signal)));
  }

  get state(): GroupState {
    return this.#state;
  }

  /** Of all members, in their order: whether each is there and has loaded the model. */
  get workersUp(): readonly boolean[] {
    return this.#members.map(({ state }) => state.kind === "present");
  }

  /** See `Group`; a listener is not called with the present state. */
  onState(listener: (state: GroupState) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * See `Group`; `step.deadlineMs` counts from the call.
   * @throws {CodedError} `group_unavailable` when the group is not ready, beside what `Group` names
   */
  async run(step: Step, traceparents: readonly string[]): Promise<StepResult> {
    const current = this.#current;
    if (this.#state.kind !== "ready" || current === undefined) {
      throw new RequestError("group_unavailable", `Cannot run step ${step.index}: the group is ${this.#state.kind}`);
    }
    if (this.#running !== undefined) {
      throw new EngineError(
        "invalid_step",
        `Cannot run step ${step.index}: step ${this.#running.index} is still running`,
      );
    }
    const end = current.run(step, traceparents);
    this.#running = { index: step.index, end };
    try {
      const result = await end;
      this.selections.report(step, result);
      return result;
    } finally {
      this.#running = undefined;
    }
  }

  async close(): Promise<void> {
    this.#enter({ kind: "closed" });
    this.#listeners.clear();
    clearTimeout(this.#pause);
    clearTimeout(this.#hopeless);
    // Workers that share a step must all be there until it has ended.
    const late = setTimeout(() => this.#current?.dissolve(CLOSED), this.#options.drainMs ?? DRAIN_MS);
    await this.#running?.end.catch(() => "the caller that runs the step gets the error");
    clearTimeout(late);
    this.#closing.abort();
    await this.#supervision;
  }

  /** Looks at the members after anything has changed, and forms the group when no more is to come. */
  #consider(): void {
    if (this.#isOver || this.#pause !== undefined) return;
    const states = this.#members.map(({ state }) => state);
    const present = this.#present();
    if (this.#current !== undefined) {
      // A worker that was given up is there again.
      if (present.length > this.#current.size) {
        this.#current.dissolve("Cannot finish step: a worker has come back, and the group forms again");
      }
      return;
    }
    if (states.some(({ kind }) => kind === "starting")) {
      const progress = states.map((state) => state.kind === "starting" ? state.progress : 1);
      return this.#enter({ kind: "loading", progress: progress.reduce((sum, one) => sum + one, 0) / states.length });
    }
    if (present.length === 0) return this.#giveUp();
    const reason = disagreement(present);
    if (reason === undefined) this.#form(present);
    else this.#enter({ kind: "broken", reason });
  }

  get #isOver(): boolean {
    return this.#state.kind === "closed" || this.#state.kind === "broken";
  }

  #present(): readonly Present[] {
    return this.#members.flatMap(({ name, state }) => state.kind === "present" ? [{ name, ...state.worker }] : []);
  }

  async #form(present: readonly Present[]): Promise<void> {
    const workers = present.map(({ info: { kvPages }, ...worker }) => ({ ...worker, kvPages }));
    const epoch = this.#epoch;
    const forming = new GroupEpoch({
      epoch,
      workers,
      selections: this.selections,
      matrix: usesMatrices(present),
      onBroken: (breach) => this.#leave(forming, breach),
    });
    this.#current = forming;
    if (!await forming.form() || this.#isOver) return;
    if (!await this.#warmUp(forming, present)) return;
    const away = this.#members.length - workers.length;
    if (away > 0) this.#options.log(`The group goes on with ${workers.length} of ${this.#members.length} workers`);
    const idle = idleMatrices(present);
    if (idle !== undefined) this.#options.log(idle);
    this.#hasFormed = true;
    this.#enter({ kind: "ready", epoch, model: modelOf(present, this.#options.modelId) });
  }

  /** Runs the first steps of a group, whose exchanges no worker could warm up alone. @returns whether it is still whole */
  async #warmUp(forming: GroupEpoch, present: readonly Present[]): Promise<boolean> {
    const { measured, ...info } = modelOf(present, this.#options.modelId);
    if (present.length === 1 || measured.length === 0) return true;
    const deadlineMs = WARM_UP_MS + WARM_UP_FACTOR * Math.max(...measured.map(({ ms }) => ms));
    const run = (step: Step) => forming.run({ ...step, deadlineMs }, []);
    try {
      await warmUp({ info: { ...info, measured }, run }, new PageMap(info.slices));
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      // When a worker was lost the epoch is over; when a step was refused the group can do without.
      this.#options.log(`Cannot warm the group up: ${error.message}`);
    }
    return this.#current === forming && !this.#isOver;
  }

  /** Ends an epoch, before anybody learns that a step failed. */
  #leave(ending: GroupEpoch, breach: Breach): void {
    if (this.#current !== ending) return;
    this.#current = undefined;
    this.#epoch++;
    if (this.#isOver) return;
    this.#enter({ kind: "loading", progress: 0 });
    // A member that is lost says so itself, and asks for the next forming when it is there again.
    if (breach.culprits.length > 0) return;
    const delayMs = breach.isPlanned ? 0 : this.#breaches.failed(performance.now());
    if (delayMs === undefined) return this.#enter({ kind: "broken", reason: breach.error.message });
    const members = this.#present().length;
    // What looks like a lost link may be a lost worker, which shows a moment later.
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#present().length === members) this.#options.log(`The group is formed again: ${breach.error.message}`);
      this.#consider();
    }, delayMs);
  }

  /** No worker is there, and none is on the way. */
  #giveUp(): void {
    const mayReturn = this.#options.members.some(({ source }) => source.returns);
    const reasons = this.#members.flatMap(({ name, state }) => state.kind === "away" ? [{ name, ...state }] : []);
    const alone = this.#members.length === 1;
    const reason = reasons.map(({ name, reason }) => alone ? reason : `${name}: ${reason}`).join("; ");
    if (!mayReturn) return this.#enter({ kind: "broken", reason });
    this.#enter({ kind: "loading", progress: 0, reason });
    if (this.#isHopeless) {
      this.#hopeless ??= setTimeout(() => this.#endHopeless(), this.#options.hopelessMs ?? HOPELESS_MS);
    }
  }

  get #isHopeless(): boolean {
    return !this.#hasFormed && this.#members.every(({ state }) => state.kind === "away" && state.isFinal);
  }

  /** What was in the way may have changed meanwhile. */
  #endHopeless(): void {
    this.#hopeless = undefined;
    if (this.#isOver || !this.#isHopeless || this.#state.kind !== "loading") return;
    this.#enter({ kind: "broken", reason: this.#state.reason ?? "Cannot form group: no worker can be used" });
  }

  #enter(state: GroupState): void {
    if (this.#state.kind === "closed") return;
    this.#state = state;
    for (const listener of this.#listeners) listener(state);
  }
}
