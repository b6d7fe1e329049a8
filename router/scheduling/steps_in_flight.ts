/** The steps that the group runs, in order, and what each was to do. */

import type { SequenceId, Span, Step, StepResult } from "../../engine/span.ts";
import { CodedError } from "../../kernels/errors.ts";
import { asCodedError } from "../errors.ts";
import type { Group } from "../group/group.ts";
import { beginStep } from "../telemetry/telemetry.ts";
import type { CostModel } from "./cost_model.ts";
import { isCurrent, type MaskFetcher } from "./mask_fetcher.ts";
import type { PageLedger } from "./page_ledger.ts";
import type { Sequence } from "./sequence.ts";
import type { Plan, PlannedSpan } from "./step_planner.ts";

/** What a step is to do. */
export interface PlannedStep {
  readonly plan: Plan;
  /** The accounts that it was planned with. */
  readonly ledger: PageLedger;
  readonly release: readonly SequenceId[];
  /** Whether another step will follow before its result is known. @default false */
  readonly isFollowed?: boolean;
}

/** A step that runs. */
export interface InFlightStep extends PlannedStep {
  readonly step: Step;
  /** When no step before it was running any more. */
  startMs: number;
  readonly result: Promise<StepResult | CodedError>;
  /** Of a step with spans whose masks follow. */
  readonly late: PromiseWithResolvers<Uint32Array> | undefined;
  /** Sequences that draw without the masks that they should have: nothing that comes of it counts. */
  unmasked: ReadonlySet<Sequence>;
}

/** What steps are made with. */
export interface StepParts {
  readonly costs: CostModel;
  /** The spans as the workers get them. */
  readonly asked: (spans: Plan["spans"]) => readonly Span[];
}

/** See the top of this file. */
export class StepsInFlight {
  readonly #group: Group;
  readonly #parts: StepParts;
  readonly #steps: InFlightStep[] = [];
  #index = 0;

  constructor(group: Group, parts: StepParts) {
    this.#group = group;
    this.#parts = parts;
  }

  get oldest(): InFlightStep | undefined {
    return this.#steps[0];
  }

  /** The newest one, where the group takes another step after it. */
  get extendable(): InFlightStep | undefined {
    return this.#steps.length < this.#group.stepsInFlight ? this.#steps.at(-1) : undefined;
  }

  /** Whether any of them computes a sequence. */
  has(sequence: Sequence): boolean {
    return this.#steps.some(({ plan }) => plan.spans.some((planned) => planned.sequence === sequence));
  }

  run(planned: PlannedStep): void {
    const { spans } = planned.plan;
    const step = this.#stepOf(planned);
    const traceparents = new Set(spans.flatMap(({ sequence }) => sequence.request.traceparent ?? []));
    const late = spans.some(({ span }) => span.masksFollow) ? Promise.withResolvers<Uint32Array>() : undefined;
    const trace = beginStep([...traceparents], step);
    const result = this.#group.run(step, trace.traceparents, late?.promise)
      .catch((error) => asCodedError(error, "run step"));
    result.then((end) => trace.end(end instanceof CodedError ? end : undefined));
    this.#steps.push({ ...planned, step, startMs: performance.now(), result, late, unmasked: new Set() });
  }

  /** The tokens before the oldest one are known: it gets the masks that follow it, as soon as they are there. */
  async supply(masks: MaskFetcher): Promise<void> {
    const { oldest } = this;
    if (oldest?.late === undefined) return;
    const supplied = await masks.supply(oldest.plan, this.#parts.costs.predictMs(oldest.plan.load));
    oldest.unmasked = supplied.unmasked;
    oldest.late.resolve(supplied.masks);
  }

  /** The oldest one is over. */
  shift(): void {
    this.#steps.shift();
    const [next] = this.#steps;
    if (next !== undefined) next.startMs = performance.now();
  }

  clear(): void {
    this.#steps.length = 0;
  }

  #stepOf({ plan: { spans, load }, release, isFollowed = false }: PlannedStep): Step {
    return {
      index: ++this.#index,
      // The step before one with sampled rows has opened their sequences.
      open: spans.flatMap(({ sequence, span }) =>
        sequence.opened || span.sampled ? [] : [sequence.open(span.sequence)]
      ),
      release,
      spans: this.#parts.asked(spans),
      deadlineMs: this.#parts.costs.deadlineMs(load),
      ...(isFollowed && this.#group.stepsInFlight > 1 && { followed: true }),
    };
  }
}

/**
 * Whether nothing counts that was drawn for a sequence: without its mask, after such a row, or after the answer's end.
 * Length is not state: if the answer goes on, its row is computed again.
 */
export function isVoid(planned: PlannedSpan, { unmasked }: InFlightStep): boolean {
  return unmasked.has(planned.sequence) || (planned.span.sampled === true && !isCurrent(planned));
}
