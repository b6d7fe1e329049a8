/** The workers of a group under one epoch: formed once, running steps in order until anything goes wrong with one. */

import { EngineError } from "../../engine/errors.ts";
import type { SparseExchange } from "../../engine/replica_plan.ts";
import { type LateMasks, MAX_STEPS_IN_FLIGHT, type Step, type StepResult } from "../../engine/span.ts";
import { CodedError } from "../../kernels/errors.ts";
import type { Address, CandidateLists } from "../../workers/protocol.ts";
import { ProtocolError } from "../../workers/errors.ts";
import { CandidateRounds } from "./candidate_rounds.ts";
import { RequestError } from "../errors.ts";
import type { ExchangeChoice } from "./exchange_choice.ts";
import type { SelectionRecord } from "./selection_record.ts";
import { outcomeOf, type StepAnswer } from "./step_requests.ts";
import type { StepRound } from "./step_round.ts";
import type { Notice, WorkerClient } from "./worker_client.ts";

/** A worker at its place in the group; the place is its index. */
export interface GroupWorker {
  /** For people. */
  readonly name: string;
  readonly client: WorkerClient;
  readonly address: Address;
  readonly kvPages: number;
}

/** Why an epoch is over. */
export interface Breach {
  readonly error: CodedError;
  /** Workers that are lost, or given up for it; none when all may go on. */
  readonly culprits: readonly GroupWorker[];
  /** Nothing went wrong. */
  readonly isPlanned?: true;
}

/** What an epoch needs. */
export interface GroupEpochOptions {
  readonly epoch: number;
  readonly workers: readonly GroupWorker[];
  readonly selections: SelectionRecord;
  /** Whether all workers have matrix units, and use them. */
  readonly matrix: boolean;
  /** Whether all workers compute the same bits. */
  readonly alike: boolean;
  /** Of the worker that has fewest. */
  readonly replicaPages: number;
  readonly sparseExchange: SparseExchange;
  /** Undefined: all sequences do as the group does. */
  readonly exchangeChoice: ExchangeChoice | undefined;
  /** Called once, before the step that runs fails. */
  readonly onBroken: (breach: Breach) => void;
}

/** See the top of this file. */
export class GroupEpoch {
  readonly #options: GroupEpochOptions;
  /** In order; the first is the one that is computed. */
  readonly #rounds: StepRound[] = [];
  readonly #ends = new Set<Promise<unknown>>();
  #isEnding = false;
  #isOver = false;

  constructor(options: GroupEpochOptions) {
    this.#options = options;
    for (const worker of options.workers) {
      worker.client.lost.then((error) => this.#break({ error, culprits: [worker] }));
    }
  }

  has(client: WorkerClient): boolean {
    return this.#options.workers.some((worker) => worker.client === client);
  }

  get clients(): readonly WorkerClient[] {
    return this.#options.workers.map(({ client }) => client);
  }

  /** Steps that may run at a time. */
  get stepsInFlight(): number {
    return this.#isEnding ? 1 : MAX_STEPS_IN_FLIGHT;
  }

  /** Brings the workers together. @returns whether it succeeded; if not, it is broken */
  async form(): Promise<boolean> {
    const { epoch, workers, matrix, alike, replicaPages, sparseExchange } = this.#options;
    const members = workers.map(({ address: { hostname, port } }) => ({ hostname, port }));
    const weights = workers.map(({ kvPages }) => kvPages);
    // All answers are awaited first: the worker that hangs must be distinguished from those that wait for it.
    const ends = await Promise.allSettled(
      workers.map(({ client }, index) =>
        client.form(
          { epoch, index, members, weights, matrix, alike, replicaPages, sparseExchange },
          (notice) => this.#hear(index, notice),
        )
      ),
    );
    const failures = ends.flatMap((end, index) => end.status === "rejected" ? [{ index, reason: end.reason }] : []);
    // A worker whose wait timed out knows less than one that was refused.
    const failure = failures.find(({ reason }) => reason.code !== "peer_late") ?? failures[0];
    if (failure !== undefined && !this.#isOver) {
      const { index, reason } = failure;
      if (!(reason instanceof CodedError)) throw reason;
      this.#breakFor(`Cannot form group: ${this.#name(index)}: ${reason.message}`, []);
    }
    return !this.#isOver;
  }

  /**
   * Runs one step on all workers.
   * @param late sent to the lead as soon as they are there
   * @throws {RequestError} `worker_lost` or `deadline_exceeded`: the epoch is broken
   * @throws {CodedError} any other code: all workers refused the step
   */
  run(given: Step, traceparents: readonly string[], late?: LateMasks): Promise<StepResult> {
    const { workers, exchangeChoice } = this.#options;
    const step = exchangeChoice?.open(given) ?? given;
    const end = new Promise<StepResult>((resolve, reject) => {
      if (this.#isOver) throw new RequestError("worker_lost", `Cannot run step ${step.index}: the epoch is over`);
      if (this.#rounds.length >= this.stepsInFlight) {
        const others = this.#rounds.length === 1 ? "another step is" : `${this.#rounds.length} other steps are`;
        throw new EngineError("invalid_step", `Cannot run step ${step.index}: ${others} still running`);
      }
      this.#rounds.push({
        step,
        answers: new Map(),
        stalled: new Map(),
        candidates: new CandidateRounds(workers.length, step.index),
        timer: undefined,
        resolve,
        reject,
      });
      if (this.#rounds.length === 1) this.#startClock();
      for (const [index, { client }] of workers.entries()) {
        client.step(step, traceparents).then(
          (answer) => this.#answered(index, step, answer),
          (error) => this.#unsent(index, step, error),
        );
      }
      late?.then((masks) => this.#supply(step, masks));
    });
    this.#ends.add(end);
    const forget = () => void this.#ends.delete(end);
    end.then(forget, forget);
    return end;
  }

  /** Waits until no step runs; those who run them get their errors. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#ends);
  }

  /** Ends the epoch although nothing went wrong, after the steps that run; no other follows them closely. */
  dissolveWhenIdle(reason: string): void {
    this.#isEnding = true;
    if (this.#rounds.length === 0) this.dissolve(reason);
    else this.idle().then(() => this.dissolve(reason));
  }

  /** Ends the epoch although nothing went wrong. */
  dissolve(reason: string): void {
    this.#break({ error: new RequestError("worker_lost", reason), culprits: [], isPlanned: true });
  }

  get #round(): StepRound | undefined {
    return this.#rounds[0];
  }

  #roundOf(index: number): StepRound | undefined {
    return this.#rounds.find(({ step }) => step.index === index);
  }

  #startClock(): void {
    const round = this.#round;
    if (round !== undefined) round.timer = setTimeout(() => this.#late(), round.step.deadlineMs);
  }

  /** Each worker answers in the order of the steps, so that the first one is complete first. */
  #answered(index: number, { index: of }: Step, answer: StepAnswer): void {
    const round = this.#roundOf(of);
    if (round === undefined) return;
    const { answers, step } = round;
    answers.set(index, answer);
    if (answers.size < this.#options.workers.length) return;
    const lead = answers.get(0);
    const alike = answers.values().every((other) => outcomeOf(other) === outcomeOf(answer));
    if (lead === undefined || !alike) {
      const outcomes = answers.entries().map(([i, other]) => `${this.#name(i)}: ${outcomeOf(other)}`);
      return this.#breakFor(`Cannot finish step ${step.index}: its workers disagree: ${[...outcomes].join(", ")}`, []);
    }
    this.#settle();
    if (lead.kind === "refused") return round.reject(new CodedError(lead.code, lead.message));
    this.#options.exchangeChoice?.learn(step, lead.result.timing);
    round.resolve(lead.result);
  }

  /** Only the lead draws. */
  #supply({ index }: Step, masks: Uint32Array): void {
    if (!this.#rounds.some(({ step }) => step.index === index)) return;
    this.#options.workers[0]?.client.supply({ kind: "masks", step: index, masks });
  }

  /** A step that fits into no frame is refused; any other failure has ended the epoch already. */
  #unsent(index: number, step: Step, error: unknown): void {
    if (this.#isOver) return;
    if (!(error instanceof ProtocolError)) throw error;
    this.#answered(index, step, { kind: "refused", index: step.index, code: error.code, message: error.message });
  }

  #hear(index: number, notice: Notice): void {
    switch (notice.kind) {
      case "candidates":
        return this.#choose(index, notice);
      case "stalled": {
        const round = this.#roundOf(notice.step);
        return round && this.#stalled(round, index, notice.on);
      }
      case "severed":
        return this.#breakFor(`Cannot finish step: ${this.#name(index)}: ${notice.message}`, []);
    }
  }

  #choose(index: number, candidates: CandidateLists): void {
    const { workers, selections } = this.#options;
    try {
      const choice = (this.#roundOf(candidates.step) ?? this.#round)?.candidates.take(index, candidates);
      if (choice === undefined) return;
      for (const { client } of workers) client.supply({ kind: "selection", ...choice.message });
      selections.note(choice.layer, choice.rows, choice.lists);
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      this.#breakFor(`Cannot finish step: ${this.#name(index)}: ${error.message}`, [index]);
    }
  }

  /**
   * A worker that still waits for one that has finished already will wait in vain. One that waited before that one finished may have
   * what it waited for; if not, it says so again.
   */
  #stalled({ answers, stalled, step }: StepRound, index: number, on: readonly number[]): void {
    stalled.set(index, on);
    const done = on.find((peer) => answers.has(peer));
    if (answers.has(index) || done === undefined) return;
    const why = `${this.#name(index)} waits for ${this.#name(done)}, which is done`;
    this.#breakFor(`Cannot finish step ${step.index}: ${why}`, []);
  }

  /** Those who wait for others are not to blame; if all do, it is the links. */
  #late(): void {
    const round = this.#round;
    if (round === undefined) return;
    const { step, answers, stalled } = round;
    const indices = this.#options.workers.map((_, index) => index);
    const silent = indices.filter((index) => !answers.has(index) && !stalled.has(index));
    const missing = silent.length > 0 ? silent : indices.filter((index) => !answers.has(index));
    const names = missing.map((index) => this.#name(index)).join(" and ");
    const message = `Cannot finish step ${step.index}: ${names} did not answer within ${step.deadlineMs} ms`;
    this.#breakFor(message, silent, "deadline_exceeded");
  }

  #breakFor(
    message: string,
    culprits: readonly number[],
    code: "worker_lost" | "deadline_exceeded" = "worker_lost",
  ): void {
    const { workers } = this.#options;
    this.#break({
      error: new RequestError(code, message),
      culprits: culprits.flatMap((index) => workers[index] ?? []),
    });
  }

  /** The first breach counts. */
  #break(breach: Breach): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { workers, onBroken } = this.#options;
    const rounds: StepRound[] = [];
    for (let round = this.#settle(); round !== undefined; round = this.#settle()) rounds.push(round);
    for (const { client } of breach.culprits) client.giveUp(breach.error);
    for (const { client } of workers) client.leave(breach.error);
    onBroken(breach);
    for (const { step, reject } of rounds) reject(stepError(step, breach.error));
  }

  #settle(): StepRound | undefined {
    const round = this.#rounds.shift();
    clearTimeout(round?.timer);
    if (!this.#isOver) this.#startClock();
    return round;
  }

  #name(index: number): string {
    return this.#options.workers[index]?.name ?? `worker ${index}`;
  }
}

/** A worker's own code would read as a refusal, but the group's state is gone. */
function stepError(step: Step, error: CodedError): CodedError {
  if (error instanceof RequestError) return error;
  return new RequestError("worker_lost", `Cannot finish step ${step.index}: ${error.message}`, { cause: error });
}
