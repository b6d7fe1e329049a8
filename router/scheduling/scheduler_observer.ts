/**
 * What the scheduler reports to its observers: moments as they happen, and a snapshot on demand.
 * Knows numbers and ids; never hands out the text of a prompt or an answer.
 */

import type { Step, StepResult } from "../../engine/span.ts";
import type { CorrectionReport } from "./correction.ts";
import type { GenerationRequest } from "./generation.ts";

/** How a generation left the scheduler: a finish reason, `cancelled`, or the code of its error. */
export type GenerationOutcome = "stop" | "length" | "cancelled" | (string & Record<never, never>);

/** A step that ran. */
export interface StepReport {
  readonly step: Step;
  readonly result: StepResult;
  /** What the cost model had expected of `result.timing.totalMs`. */
  readonly predictedMs: number;
  /** From handing the step over to having its result, in milliseconds: the wire included. */
  readonly roundTripMs: number;
}

/** Implemented by telemetry; what is left out is not observed. Called on the token path: must be quick, must not throw. */
export interface SchedulerObserver {
  /** A request got its first pages; once per request, replays aside. */
  onAdmitted?(request: GenerationRequest, admission: { readonly queueMs: number; readonly cachedTokens: number }): void;
  onStep?(report: StepReport): void;
  /** Sparse rows of a request were computed again with full attention. */
  onCorrection?(request: GenerationRequest, report: CorrectionReport): void;
  /** The group refused a step; the sequences in it end with the error. */
  onRefused?(step: Step, error: Error): void;
  /** Pages ran out: the request waits at the head of the queue and is rebuilt later. */
  onPreempted?(request: GenerationRequest): void;
  /** The group broke: the request is rebuilt once the group is back. */
  onReplayed?(request: GenerationRequest): void;
  onEnded?(request: GenerationRequest, outcome: GenerationOutcome): void;
}

/** The scheduler at one moment; counts without a unit are since the start. */
export interface SchedulerStats {
  readonly running: number;
  readonly waiting: number;
  /** `used`: held by sequences; `cached`: held by the prefix cache alone; all zero while no group is ready. */
  readonly pages: { readonly total: number; readonly used: number; readonly cached: number; readonly free: number };
  /** Prompt tokens looked up in the prefix cache, and found there. */
  readonly prefix: { readonly queryTokens: number; readonly hitTokens: number };
  readonly preemptions: number;
  readonly replays: number;
  readonly steps: number;
  /** Rows prefilled (rebuilt ones included), and tokens that readers got. */
  readonly tokens: { readonly prefilled: number; readonly generated: number };
}
