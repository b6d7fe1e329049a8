/**
 * How long a step will take: a linear fit to the steps seen so far, over rows and rows × context. Chunks are sized and
 * deadlines set by it. What it learned of a group it keeps for the next one of as many workers, and before it has learned
 * anything it relies on what the workers measured while they warmed up.
 */

import { at } from "../../kernels/at.ts";
import type { EngineInfo, MeasuredStep } from "../../engine/engine_info.ts";

/** The kinds of rows that run different kernels. */
export type RowKind = "prefill" | "dense" | "sparse" | "rebuild" | "correction";

/** What a step has to compute. */
export interface StepLoad {
  /** Kinds of rows that are in the step. */
  readonly kinds: readonly RowKind[];
  readonly prefillRows: number;
  /** Positions seen, summed over the prefill rows. */
  readonly prefillContext: number;
  /** Decoded rows, one for each of their sequences. */
  readonly decodeRows: number;
  /** KV rows read per layer, summed over the decode rows: sparse rows count what they read on average. */
  readonly decodeContext: number;
  /** Rows of dense decode spans of many rows: corrected ones and rebuilt ones. */
  readonly consecutiveRows: number;
  /** Positions seen, summed over these rows. */
  readonly spanContext: number;
}

/** A step without rows. */
export const NO_LOAD: StepLoad = {
  kinds: [],
  prefillRows: 0,
  prefillContext: 0,
  decodeRows: 0,
  decodeContext: 0,
  consecutiveRows: 0,
  spanContext: 0,
};

/** Positions seen by consecutive rows from a position on, summed: what prefill adds to `prefillContext`. */
export function contextOf(from: number, rows: number): number {
  return rows * from + rows * (rows + 1) / 2;
}

/** Milliseconds per step, and per row and row × position of prefill, of decoding and of dense spans: of a slow machine. */
const GUESS = [5, 7.5, 1e-4, 20, 1e-3, 20, 1e-3] as const;

/** What the guess weighs, in steps: little, so that a few real ones outvote it. */
const GUESS_WEIGHT = 0.01;

/** Weight that a step keeps when the next one is learnt: the last 100 or so count. */
const MEMORY = 0.99;

/** A step this much slower than expected is believed only so far: it may have been a hiccup. */
const SURPRISE = 4;

/**
 * A hang is to be noticed within 10 s, unless a step may take nearly as long. Software adapters have all of it for every step: they make
 * some kernels when a request first needs them, which is no part of a prediction.
 */
const DEADLINE = { factor: 5, marginMs: 5000, mostMs: 9500, leastFactor: 3, leastMarginMs: 2000 } as const;

/** What was learned of groups, by their number of workers. */
export class CostModel {
  readonly #fits = new Map<number, StepFit>();
  #fit = new StepFit(GUESS);
  #software = false;

  /** @returns milliseconds, more than 0 */
  predictMs(load: StepLoad): number {
    return this.#fit.predictMs(featuresOf(load));
  }

  /** When to give a worker up as lost, in milliseconds after the step was sent. */
  deadlineMs(load: StepLoad): number {
    const { factor, marginMs, mostMs, leastFactor, leastMarginMs } = DEADLINE;
    const predictedMs = this.predictMs(load);
    const patientMs = this.#software ? mostMs : Math.min(factor * predictedMs + marginMs, mostMs);
    return Math.max(patientMs, leastFactor * predictedMs + leastMarginMs);
  }

  /** Takes in what a step really took. */
  learn(load: StepLoad, tookMs: number): void {
    if (load.kinds.length === 0 || !Number.isFinite(tookMs)) return;
    this.#fit.learn(featuresOf(load), tookMs);
  }

  /**
   * A group was formed: uses what was learned of groups of the same size.
   * @param measured by its workers while they warmed up; used where nothing was learned yet
   * @param software whether any of them computes on the CPU
   */
  settle(workers: number, { measured, software }: Pick<EngineInfo, "measured" | "software">): void {
    this.#software = software;
    const known = this.#fits.get(workers);
    this.#fit = known ?? new StepFit(guessFrom(measured));
    if (known === undefined) this.#fits.set(workers, this.#fit);
  }
}

/** Weighted non-negative least squares over relative errors, updated step by step. */
class StepFit {
  readonly #weights: number[];
  /** Normal equations: Σ x xᵀ / y² and Σ x / y. */
  readonly #gram: number[][];
  readonly #moment: number[];

  /** @param guess a weight for each feature, all above 0 */
  constructor(guess: readonly number[]) {
    this.#weights = [...guess];
    this.#gram = guess.map((one, i) => guess.map((_, j) => i === j ? GUESS_WEIGHT / (one * one) : 0));
    this.#moment = guess.map((one) => GUESS_WEIGHT / one);
  }

  predictMs(features: readonly number[]): number {
    return Math.max(0.01, this.#weights.reduce((sum, weight, i) => sum + weight * at(features, i), 0));
  }

  learn(features: readonly number[], tookMs: number): void {
    const y = Math.min(Math.max(tookMs, 0.01), SURPRISE * this.predictMs(features));
    const x = features.map((feature) => feature / y);
    this.#gram.forEach((row, i) => row.forEach((sum, j) => row[j] = MEMORY * sum + at(x, i) * at(x, j)));
    this.#moment.forEach((sum, i) => this.#moment[i] = MEMORY * sum + at(x, i));
    this.#solve();
  }

  /** Coordinate descent from the last solution: a direction that was not measured lately keeps its value. */
  #solve(): void {
    for (let sweep = 0; sweep < 30; sweep++) {
      this.#gram.forEach((row, i) => {
        const curvature = at(row, i);
        if (curvature < 1e-300) return;
        const gradient = row.reduce((sum, value, j) => sum + value * at(this.#weights, j), -at(this.#moment, i));
        this.#weights[i] = Math.max(0, at(this.#weights, i) - gradient / curvature);
      });
    }
  }
}

/** The guess, scaled for each kind of rows by what such a step really took. */
function guessFrom(measured: readonly MeasuredStep[]): readonly number[] {
  const guess = new StepFit(GUESS);
  const scales = new Map(
    measured.map((step) => [weightsOf(step), Math.max(1e-4, step.ms / guess.predictMs(featuresOf(loadOf(step))))]),
  );
  const scaleOf = (i: number) => i === 0 ? Math.min(1, ...scales.values()) : scales.get(Math.ceil(i / 2)) ?? 1;
  return GUESS.map((weight, i) => weight * scaleOf(i));
}

/** Which pair of weights a kind of rows has, counted from 1. */
function weightsOf({ kind }: MeasuredStep): number {
  return kind === "prefill" ? 1 : kind === "correction" ? 3 : 2;
}

function loadOf({ kind, rows, context }: MeasuredStep): StepLoad {
  const kinds = [kind];
  if (kind === "prefill") return { ...NO_LOAD, kinds, prefillRows: rows, prefillContext: context };
  if (kind === "correction") return { ...NO_LOAD, kinds, consecutiveRows: rows, spanContext: context };
  return { ...NO_LOAD, kinds, decodeRows: rows, decodeContext: context };
}

function featuresOf(load: StepLoad): readonly number[] {
  const { prefillRows, prefillContext, decodeRows, decodeContext, consecutiveRows, spanContext } = load;
  return [1, prefillRows, prefillContext, decodeRows, decodeContext, consecutiveRows, spanContext];
}
