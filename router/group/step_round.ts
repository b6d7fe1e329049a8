/** A step on its way through all workers of a group. */

import type { Step, StepResult } from "../../engine/span.ts";
import type { CodedError } from "../../kernels/errors.ts";
import type { CandidateRounds } from "./candidate_rounds.ts";
import type { StepAnswer } from "./step_requests.ts";

/** See the top of this file. */
export interface StepRound {
  readonly step: Step;
  /** By index of the worker. */
  readonly answers: Map<number, StepAnswer>;
  /** Who waits, and for whom; none: for the router. */
  readonly stalled: Map<number, readonly number[]>;
  readonly candidates: CandidateRounds;
  /** Runs from the moment on when nothing is computed before it. */
  timer: ReturnType<typeof setTimeout> | undefined;
  readonly resolve: (result: StepResult) => void;
  readonly reject: (error: CodedError) => void;
}
