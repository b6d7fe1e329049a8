/**
 * Runs the steps of an engine: in order, each checked against the state that the one before leaves, and up to two at a time, so
 * that the GPU finds the next one ready when it is done with the first.
 */

import { within } from "../kernels/within.ts";
import { checkStep } from "./check_step.ts";
import { EngineError } from "./errors.ts";
import { SLOTS } from "./kv/kv_slice.ts";
import type { Sequences } from "./kv/sequences.ts";
import type { LoadedModel } from "./loaded_model.ts";
import { submitStep, type SubmittedStep } from "./pass/run_step.ts";
import { type LateMasks, MAX_STEPS_IN_FLIGHT, type SequenceId, type Step, type StepResult } from "./span.ts";

/**
 * How long a step that is followed waits for the next one before it is read, where a read-back would hold the thread and
 * wait for everything submitted: the next step is a message away, and the GPU computes meanwhile.
 */
const NEXT_STEP_MS = 2;

/** No step before, or one that drew nothing. */
const NOTHING_DRAWN: ReadonlyMap<SequenceId, number> = new Map();

/** Of a step whose spans have their masks. */
const NO_MASKS: LateMasks = Promise.resolve(new Uint32Array());

/** A step from its call to its result. */
interface RunningStep {
  readonly step: Step;
  /** Resolves when the step after it is recorded, or cannot be. */
  readonly nextRecorded: PromiseWithResolvers<void>;
  /** Resolves when it has a result, or has failed. */
  readonly done: PromiseWithResolvers<void>;
  isDone: boolean;
  endMs: number;
  /** Why its rows hold anything, if so. */
  failure: Error | undefined;
}

/** What the steps of an engine run on; the model changes with its place in a group. */
export interface StepRunnerParts {
  readonly model: LoadedModel;
  readonly sequences: Sequences;
}

/** See the top of this file. */
export class StepRunner {
  readonly #parts: () => StepRunnerParts;
  readonly #running = new Set<RunningStep>();
  #newest: RunningStep | undefined;
  #recording: Promise<unknown> = Promise.resolve();
  #drawn = NOTHING_DRAWN;

  constructor(parts: () => StepRunnerParts) {
    this.#parts = parts;
  }

  /** Whether a step runs. */
  get isBusy(): boolean {
    return this.#running.size > 0;
  }

  /**
   * Runs one step; results come in the order of the calls.
   * @param late for the spans whose masks follow; what it rejects with ends the step, and with it the step after it
   * @throws {EngineError} `invalid_step`, `kv_exhausted`: refused, and has changed nothing
   * @throws {GpuError} `out_of_gpu_memory`: failed, and with it the step after it; `device_lost`
   */
  async run(step: Step, late: LateMasks = NO_MASKS): Promise<StepResult> {
    if (this.#running.size >= MAX_STEPS_IN_FLIGHT) {
      throw new EngineError(
        "invalid_step",
        `Cannot run step ${step.index}: ${MAX_STEPS_IN_FLIGHT} other steps are running`,
      );
    }
    // One that is over, in a group of the past perhaps, has no say in this one.
    const before = this.#newest?.isDone === false ? this.#newest : undefined;
    const running: RunningStep = {
      step,
      nextRecorded: Promise.withResolvers(),
      done: Promise.withResolvers(),
      isDone: false,
      endMs: -Infinity,
      failure: undefined,
    };
    this.#newest = running;
    this.#running.add(running);
    // A step that is refused does not ask for its masks.
    late.catch(() => {});
    const submitted = this.#recording.then(() => this.#submit(running, before, late));
    // A failure is for `#finish` to report.
    this.#recording = submitted.then(() => {}, () => {}).then(() => before?.nextRecorded.resolve());
    try {
      return await this.#finish(running, before, submitted);
    } finally {
      running.isDone = true;
      running.endMs = performance.now();
      this.#running.delete(running);
      this.#parts().model.commands.release();
      running.done.resolve();
    }
  }

  /** Waits until no step runs; their failures reach the callers of `run`. */
  async idle(): Promise<void> {
    for (const { done } of [...this.#running]) await done.promise;
  }

  async #submit(running: RunningStep, before: RunningStep | undefined, late: LateMasks): Promise<SubmittedStep> {
    const { model, sequences } = this.#parts();
    const { step } = running;
    // All workers of a group must have the same account of copies, which the end of a step changes by what it releases.
    if (model.replicas !== undefined && (before?.step.release.length ?? 0) > 0) await before?.done.promise;
    const drawn = this.#drawn;
    this.#drawn = NOTHING_DRAWN;
    checkStep(step, sequences.open, { ...boundsOf(model), drawn });
    sequences.begin(step);
    model.replicas?.invalidate(step.spans);
    model.counts.rewrite(step.spans);
    try {
      const isAhead = () => before !== undefined && !before.isDone;
      const lateMasks = () => masksAfter(isAhead() ? before : undefined, late);
      const context = { sequences: sequences.open, drawn, isAhead, beforeDone: () => doneOf(before), lateMasks };
      const submitted = await submitStep(model, step, context);
      this.#drawn = submitted.drawn;
      return submitted;
    } catch (error) {
      throw this.#fail(running, error);
    }
  }

  async #finish(
    running: RunningStep,
    before: RunningStep | undefined,
    submitted: Promise<SubmittedStep>,
  ): Promise<StepResult> {
    const { model, sequences } = this.#parts();
    const { step } = running;
    // Also of one that is refused: nothing may take it for the end of the step before.
    const { finish } = await submitted.finally(() => before?.done.promise);
    if (step.followed && model.commands.gpu.traits.readWaitsForAll) {
      await within(NEXT_STEP_MS, running.nextRecorded.promise);
    }
    try {
      if (before?.failure !== undefined) throw before.failure;
      const result = await finish(before?.endMs ?? -Infinity);
      sequences.learn(step, result.spans);
      model.counts.learn(step, result.spans);
      sequences.end(step);
      model.replicas?.release(step.release);
      for (const sequence of step.release) {
        model.drafts.forget(sequence);
        model.counts.forget(sequence);
      }
      return result;
    } catch (error) {
      throw this.#fail(running, error);
    }
  }

  /** Undoes a step, and has the one after it fail too. @returns why */
  #fail(running: RunningStep, error: unknown): Error {
    running.failure = error instanceof Error ? error : new Error(String(error));
    this.#undo(running.step);
    return running.failure;
  }

  /** Undoes a step that failed; frees memory that grows too, as an allocation that failed would fail every later step. */
  #undo(step: Step): void {
    const { model: { commands, scratch, replicas, drafts, counts }, sequences } = this.#parts();
    this.#drawn = NOTHING_DRAWN;
    sequences.undo(step);
    replicas?.clear();
    commands.delivered();
    commands.submit();
    for (const owner of [scratch, drafts, counts]) owner.close();
  }
}

function boundsOf(
  { slice, share, roles, config }: LoadedModel,
): Omit<Parameters<typeof checkStep>[2], "drawn"> {
  const { maxPositions, vocabSize } = config;
  return {
    maxPositions,
    vocabSize,
    map: share.map,
    maxPages: slice.maxPages,
    slots: SLOTS,
    calibrated: roles !== undefined,
  };
}

/** Waits until a step has its result. @throws why it has none */
async function doneOf(step: RunningStep | undefined): Promise<void> {
  step?.nextRecorded.resolve();
  await step?.done.promise;
  // The buffers of both steps are gone.
  if (step?.failure !== undefined) throw step.failure;
}

/** The masks of draws whose rows are on the GPU; nothing else of the step is to be recorded before they are there. */
async function masksAfter(before: RunningStep | undefined, late: LateMasks): LateMasks {
  before?.nextRecorded.resolve();
  const masks = await late;
  await doneOf(before);
  return masks;
}
