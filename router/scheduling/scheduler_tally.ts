/**
 * Counts what happens in the scheduler, and passes it on to an observer. Knows sequences and steps; decides nothing.
 */

import type { Step } from "../../engine/span.ts";
import type { GenerationOutcome, SchedulerObserver, SchedulerStats, StepReport } from "./scheduler_observer.ts";
import type { Sequence } from "./sequence.ts";
import type { Progress } from "./work.ts";
import type { PlannedSpan } from "./step_planner.ts";

/** The counters of one scheduler, since its start. */
export class SchedulerTally {
  readonly #observer: SchedulerObserver;
  readonly #counts = { queryTokens: 0, hitTokens: 0, preemptions: 0, replays: 0, steps: 0, prefilled: 0, generated: 0 };

  constructor(observer: SchedulerObserver | undefined) {
    this.#observer = observer ?? {};
  }

  get counts(): Pick<SchedulerStats, "prefix" | "preemptions" | "replays" | "steps" | "tokens"> {
    const { queryTokens, hitTokens, preemptions, replays, steps, prefilled, generated } = this.#counts;
    return { prefix: { queryTokens, hitTokens }, preemptions, replays, steps, tokens: { prefilled, generated } };
  }

  /** Its first admission. @param queueMs since it arrived */
  admitted(sequence: Sequence, queueMs: number): void {
    const cachedTokens = sequence.cachedTokens ?? 0;
    this.#counts.queryTokens += sequence.request.promptTokens.length;
    this.#counts.hitTokens += cachedTokens;
    this.#observer.onAdmitted?.(sequence.request, { queueMs, cachedTokens });
  }

  preempted(sequence: Sequence): void {
    this.#counts.preemptions++;
    this.#observer.onPreempted?.(sequence.request);
  }

  replayed(sequence: Sequence): void {
    this.#counts.replays++;
    this.#observer.onReplayed?.(sequence.request);
  }

  /** A span was computed and brought its sequence on. */
  advanced({ sequence, work }: PlannedSpan, { tokens, correction }: Progress): void {
    this.#counts.generated += tokens;
    if (work.kind === "prefill" || work.kind === "rebuild") this.#counts.prefilled += work.rows;
    if (correction !== undefined) this.#observer.onCorrection?.(sequence.request, correction);
  }

  step(report: StepReport): void {
    this.#counts.steps++;
    this.#observer.onStep?.(report);
  }

  refused(step: Step, error: Error): void {
    this.#observer.onRefused?.(step, error);
  }

  ended(sequence: Sequence, outcome: GenerationOutcome): void {
    this.#observer.onEnded?.(sequence.request, outcome);
  }
}
