/**
 * Who runs when: admits requests, plans steps, runs them on the group one after another and hands tokens out, until
 * nothing is left to do. Survives preemption and the loss of the group, because every token is here.
 */

import type { SequenceId, SpanResult } from "../../engine/span.ts";
import { CodedError } from "../../kernels/errors.ts";
import { ActiveSequences } from "./active_sequences.ts";
import { beginSequence } from "./begin_sequence.ts";
import { checkFits, checkQueue, readyModel, shutDown } from "./admission.ts";
import { resolveAttention } from "./attention_policy.ts";
import { CostModel, NO_LOAD } from "./cost_model.ts";
import { asCodedError, RequestError } from "../errors.ts";
import type { Generation, GenerationRequest, Generator } from "./generation.ts";
import type { Group } from "../group/group.ts";
import { MaskFetcher } from "./mask_fetcher.ts";
import type { PageLedger } from "./page_ledger.ts";
import { EpochAccounts } from "./epoch_accounts.ts";
import { Outlook } from "./outlook.ts";
import { Roster } from "./roster.ts";
import { planAhead, verifies, workAfterAll } from "./run_ahead.ts";
import type { GenerationOutcome, SchedulerStats } from "./scheduler_observer.ts";
import { counter, DEFAULTS, type SchedulerOptions } from "./scheduler_options.ts";
import { SchedulerTally } from "./scheduler_tally.ts";
import { SelectionView } from "./selection_view.ts";
import type { Sequence } from "./sequence.ts";
import { type Plan, type PlannedSpan, StepPlanner } from "./step_planner.ts";
import { type InFlightStep, isVoid, StepsInFlight } from "./steps_in_flight.ts";
import { roundMs } from "./work_load.ts";

/** Releases one doubtful sequence in a step of its own, so that a refusal affects nothing else. */
const PROBE: Plan = { spans: [], load: NO_LOAD };

/** Runs the generations of all requests on one group. */
export class Scheduler implements Generator {
  /** What was chosen last for each sequence. */
  readonly selections: SelectionView;
  /** What requests would find here, for those that may come or go. */
  readonly outlook: Outlook;
  readonly #group: Group;
  readonly #options: Required<Omit<SchedulerOptions, "observer" | "constraints">>;
  readonly #tally: SchedulerTally;
  readonly #roster = new Roster();
  readonly #epoch: EpochAccounts;
  readonly #masks: MaskFetcher;
  readonly #costs = new CostModel();
  readonly #active: ActiveSequences;
  readonly #steps: StepsInFlight;
  #loop: Promise<void> | undefined;
  /** Something has changed since the loop last looked. */
  #isDue = false;
  /** Opened or released by a step that was refused: the worker may or may not know them. */
  #doubtful: SequenceId[] = [];
  #draining = false;
  #closed = false;

  constructor(group: Group, options: SchedulerOptions = {}) {
    const { observer, constraints, ...others } = options;
    this.#group = group;
    const asked = (spans: Plan["spans"]) => this.selections.tides.asked(spans);
    this.#steps = new StepsInFlight(group, { costs: this.#costs, asked });
    this.selections = new SelectionView(group);
    this.#options = { ...DEFAULTS, arrivals: counter(), ...others };
    this.#tally = new SchedulerTally(observer);
    this.#masks = new MaskFetcher(constraints);
    this.#active = new ActiveSequences(this.#options.queueTimeoutMs);
    this.#epoch = new EpochAccounts(group, this.#roster, {
      recoverMs: this.#options.recoverMs,
      onSettled: (model) => {
        this.#costs.settle(model.slices.length, model);
        this.#doubtful = [];
      },
      onLost: (sequence, error, isPlanned) => this.#onLost(sequence, isPlanned ? undefined : error),
      onAbandoned: (sequence, error) => this.#options.onAbandoned(sequence) || this.#fail(sequence, error),
    });
    const ledger = () => this.#epoch.ledger;
    this.outlook = new Outlook({ ...this.#options, group, roster: this.#roster, costs: this.#costs, ledger });
    group.onState(() => this.#wake());
    this.#wake();
  }

  generate(request: GenerationRequest): Generation {
    if (this.#draining) throw new RequestError("draining", "Cannot admit request: the service is shutting down");
    const model = readyModel(this.#group.state);
    checkFits(request, model);
    const policy = resolveAttention(request.attention, model);
    // Those of one request come together: the first is checked for all.
    if (!this.#active.has(request.requestId)) checkQueue(request.choices, this.#roster, this.#options);
    const masks = this.#masks.open(request, model);
    const { sequence, generation } = beginSequence({ ...this.#options, request, model, policy, masks });
    this.selections.name(request.id, undefined);
    this.#enter(sequence);
    return generation;
  }

  /** Gives a waiting sequence to another scheduler that can take it, with its watchers; its reader notices nothing. */
  handOver(sequence: Sequence, to: Scheduler): void {
    this.#active.delete(sequence);
    this.#roster.leave(sequence, undefined);
    this.selections.handOver(sequence.request.id, to.selections);
    sequence.lastStep = 0; // Each group counts steps for itself.
    to.#enter(sequence);
  }

  #enter(sequence: Sequence): void {
    sequence.owner = {
      wake: () => this.#wake(),
      cancel: () => this.#cancel(sequence),
      fail: (error) => this.#fail(sequence, error),
      roundMs: (rows) => roundMs(this.#costs, sequence, rows),
    };
    this.#active.add(sequence);
    this.#roster.enqueue(sequence);
    this.#wake();
  }

  /** Whether a reader waits for anything. */
  get isBusy(): boolean {
    return this.#active.size > 0;
  }

  /** The state of things, now. */
  stats(): SchedulerStats {
    return {
      ...this.#tally.counts,
      ...this.#roster.counts,
      pages: this.#epoch.ledger?.pages ?? { total: 0, used: 0, cached: 0, free: 0 },
    };
  }

  /**
   * Refuses new requests and lets those it has finish; those that have not by the deadline end with `draining`.
   * @returns when no request is left
   */
  async drain(deadlineMs: number): Promise<void> {
    this.#draining = true;
    await this.#active.emptied(deadlineMs, () => this.#failAll(shutDown(`, ${deadlineMs} ms are over`)));
  }

  /** Ends what is left and waits for the running step, which closing the group cuts short. Does not close the group. */
  async close(): Promise<void> {
    this.#draining = this.#closed = true;
    this.#failAll(shutDown());
    this.#epoch.close();
    await this.#loop;
  }

  /** Checks the accounts of pages. @throws {EngineError} `invalid_step` when pages are held by no known sequence */
  check(): void {
    this.#epoch.ledger?.check(this.#roster.running);
  }

  #wake(): void {
    this.#isDue = true;
    if (!this.#closed) this.#loop ??= this.#run();
  }

  async #run(): Promise<void> {
    try {
      await Promise.resolve(); // Requests of the same turn are planned together.
      for (;;) {
        this.#isDue = false;
        if (this.#steps.oldest === undefined) await this.#runNext();
        const { oldest } = this.#steps;
        // The step after one whose masks follow cannot be recorded before it: the masks go first.
        const ahead = oldest && this.#steps.supply(this.#masks).then(() => this.#runAhead());
        if (oldest !== undefined) await Promise.all([ahead, this.#finish(oldest)]);
        // Planning may have taken the place of a sequence, and its masks with it.
        else if (!this.#isDue && this.#masks.request(this.#active).length === 0) return;
      }
    } catch (error) {
      // A bug: no request may wait for an answer that will not come.
      this.#steps.clear();
      this.#failAll(asCodedError(error, "run the scheduler"));
      // Sequences cancelled while that step ran were to leave with its result.
      for (const sequence of [...this.#roster.running]) this.#roster.leave(sequence, this.#epoch.ledger);
    } finally {
      this.#loop = undefined;
    }
  }

  /** Starts the next step, unless there is nothing to do. */
  async #runNext(): Promise<void> {
    await this.#masks.settle(this.#active);
    const ledger = this.#closed ? undefined : this.#epoch.follow();
    if (ledger === undefined) return;
    const doubtful = this.#doubtful.shift();
    if (doubtful !== undefined) return this.#steps.run({ plan: PROBE, ledger, release: [doubtful] });
    const plan = new StepPlanner({
      ...{ roster: this.#roster, ledger, costs: this.#costs, limits: this.#options },
      onPreempted: (sequence) => this.#tally.preempted(sequence),
      onAdmitted: (sequence) => this.#onAdmitted(sequence),
    }).plan();
    const release = this.#roster.takeReleases();
    if (plan.spans.length + release.length === 0) return;
    this.#steps.run({ plan, ledger, release, isFollowed: workAfterAll(plan, this.#roster) !== undefined });
  }

  /** Starts the step after the newest one, where it is certain. */
  #runAhead(): void {
    const newest = this.#steps.extendable;
    if (newest === undefined || this.#closed || this.#doubtful.length > 0) return;
    const plan = planAhead(newest, { roster: this.#roster, costs: this.#costs, limits: this.#options });
    if (plan === undefined) return;
    this.#steps.run({ plan, ledger: newest.ledger, release: this.#roster.takeReleases(), isFollowed: !verifies(plan) });
  }

  async #finish(running: InFlightStep): Promise<void> {
    const { step, plan, ledger, startMs } = running;
    const predictedMs = this.#costs.predictMs(plan.load);
    const result = await running.result;
    this.#steps.shift();
    if (result instanceof CodedError) return this.#failStep(running, result);
    this.#costs.learn(plan.load, result.timing.totalMs);
    for (const { sequence } of plan.spans) {
      sequence.opened = true;
      sequence.lastStep = step.index;
    }
    this.selections.tides.computed(plan.spans);
    plan.spans.forEach((planned, i) => {
      if (!isVoid(planned, running)) this.#take(planned, result.spans[i], ledger);
      else if (planned.sequence.over) this.#leave(planned.sequence, ledger);
    });
    this.#tally.step({ step, result, predictedMs, roundTripMs: performance.now() - startMs });
  }

  #take(planned: PlannedSpan, result: SpanResult | undefined, ledger: PageLedger): void {
    const { sequence, span } = planned;
    this.#tally.advanced(planned, sequence.advance(planned, result));
    if (span.kind === "prefill") ledger.share(sequence);
    const reason = sequence.finishReason();
    if (sequence.over) this.#leave(sequence, ledger);
    else if (reason !== undefined) {
      sequence.events.push({ kind: "finished", reason, usage: sequence.usage() });
      sequence.events.end();
      this.#end(sequence, reason);
    }
  }

  /** A step came back with an error: the group is gone, or it refused the step. */
  #failStep({ step, plan, ledger }: InFlightStep, error: CodedError): void {
    if (error.code === "worker_lost" || error.code === "deadline_exceeded") {
      this.#steps.clear(); // Those after it are lost with it.
      return this.#epoch.lose(error);
    }
    if (plan === PROBE) return; // The worker does not know the sequence: there is nothing to release.
    this.#tally.refused(step, error);
    // The fault may have been found after some were released or opened: each is released in a step of its own.
    this.#doubtful.push(...step.release, ...step.open.map((open) => open.sequence));
    for (const { sequence } of plan.spans) {
      if (sequence.over) this.#leave(sequence, ledger);
      else this.#fail(sequence, error);
    }
  }

  #onAdmitted(sequence: Sequence): void {
    this.selections.name(sequence.request.id, sequence.id);
    if (this.#active.admitted(sequence)) this.#tally.admitted(sequence, performance.now() - sequence.arrivedAtMs);
  }

  /** The group broke under it: it may try again, but must get further than the last time. No error: it only changed. */
  #onLost(sequence: Sequence, error: CodedError | undefined): void {
    if (sequence.over) return this.#roster.leave(sequence, undefined);
    if (error !== undefined && sequence.replayedAt === sequence.generated) return this.#fail(sequence, error);
    if (error !== undefined) sequence.replayedAt = sequence.generated;
    this.#tally.replayed(sequence);
  }

  #cancel(sequence: Sequence): void {
    if (sequence.over) return;
    sequence.events.cut();
    this.#end(sequence, "cancelled");
  }

  #fail(sequence: Sequence, error: CodedError): void {
    if (sequence.over) return;
    sequence.events.end(error);
    this.#end(sequence, error.code);
  }

  #failAll(error: CodedError): void {
    for (const sequence of [...this.#active]) this.#fail(sequence, error);
  }

  /** Its reader has its end; its pages are freed now, or with the step that is computing it. */
  #end(sequence: Sequence, outcome: GenerationOutcome): void {
    sequence.over = true;
    this.#active.delete(sequence);
    sequence.masks?.close();
    this.selections.end(sequence.request.id);
    this.#leave(sequence, this.#epoch.ledger);
    this.#tally.ended(sequence, outcome);
    this.#wake();
  }

  /** Its pages go, unless a step still computes it: then with the last one that does. */
  #leave(sequence: Sequence, ledger: PageLedger | undefined): void {
    if (!this.#steps.has(sequence)) this.#roster.leave(sequence, ledger);
  }
}
