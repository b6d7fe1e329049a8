/**
 * One step, once it was checked: planned behind the one before, recorded, submitted and read. Knows what a step continues, and when
 * the GPU is waited for; knows nothing of how batches are computed.
 */

import { at } from "../../kernels/at.ts";
import type { StagedRead } from "../../kernels/gpu.ts";
import { rowProductCut } from "../../kernels/products/row_tile.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { LateMasks, SequenceId, Step, StepResult } from "../span.ts";
import { planBatches } from "./batch_plan.ts";
import { type RecordedStep, recordStep } from "./record_step.ts";
import { joinBefore } from "./step_before.ts";
import { wholeSequences } from "./whole_sequences.ts";

/** What a step continues. */
export interface StepContext {
  /** As they are once the step's sequences are opened and its tokens are known. */
  readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
  /** Places of the tokens that the step before drew last. */
  readonly drawn: ReadonlyMap<SequenceId, number>;
  /** Whether the GPU still computes the step before. */
  isAhead(): boolean;
  /** Waits until that one has its result, or rejects with why it has none. */
  beforeDone(): Promise<void>;
  /** Called where a draw lacks its mask, once everything before the draws is submitted. */
  readonly lateMasks: () => LateMasks;
}

/** A step whose commands are submitted, or held back until the step before has been read. */
export interface SubmittedStep {
  /** Places of the tokens that it draws last. */
  readonly drawn: ReadonlyMap<SequenceId, number>;
  /**
   * Waits for the GPU.
   * @param sinceMs when the step before was done, by `performance.now`: the time of this one counts from there
   * @returns of the lead, what the spans asked for; of other workers, that they have computed
   * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
   */
  finish(sinceMs: number): Promise<StepResult>;
}

/**
 * Records and submits all spans of a step; waits for the GPU where it must: for exchanges of a group, and in the course of
 * long spans.
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function submitStep(
  model: LoadedModel,
  step: Step,
  { sequences, drawn, lateMasks, ...before }: StepContext,
): Promise<SubmittedStep> {
  const start = performance.now();
  const { commands, config, share, replicas } = model;
  const maxScores = Math.floor(commands.gpu.info.maxBindingBytes / (4 * config.heads));
  const matrix = rowProductCut(commands.gpu.info) !== undefined;
  const [window, localWindow] = [config.slidingWindow, config.localLayers?.window];
  const whole = wholeSequences(model, step.spans, sequences);
  const spans = await joinBefore(model, step, { whole, sequences, ...before });
  const isAhead = before.isAhead();
  if (isAhead && commands.gpu.traits.readWaitsForAll) commands.hold();
  const context = { sequences, drawn, window, localWindow, maxScores, share, matrix, replicas, whole };
  const batches = planBatches(spans, context);
  const recorded = await recordStep(model, { ...step, spans }, { batches, isAhead, lateMasks });
  const staged = commands.stage(recorded.requests);
  const encoded = performance.now();
  return {
    drawn: recorded.drawn,
    finish: (sinceMs) => finish(model, { step, recorded, staged, sinceMs, start, encoded }),
  };
}

async function finish(
  { commands, exchange }: LoadedModel,
  { step, recorded, staged, sinceMs, start, encoded }: {
    readonly step: Step;
    readonly recorded: RecordedStep;
    readonly staged: StagedRead;
    readonly sinceMs: number;
    readonly start: number;
    readonly encoded: number;
  },
): Promise<StepResult> {
  if (recorded.held !== undefined) commands.release(recorded.held);
  const bytes = await commands.gpu.finishRead(staged);
  const end = performance.now();
  const { replicated, awaitedMs, keys } = recorded;
  const own = bytes.splice(bytes.length - keys.length);
  for (const [i, point] of keys.entries()) await exchange.sendKeys(point, at(own, i));
  const timing = {
    encodeMs: encoded - start - awaitedMs,
    waitMs: end - Math.max(sinceMs, encoded),
    totalMs: end - Math.max(sinceMs, start),
    ...(replicated.chosen > 0 && { replicas: replicated }),
  };
  return { index: step.index, spans: recorded.spans(bytes), timing };
}
