/**
 * How long a step will take: a line through the steps seen so far, over rows and rows × context. Chunks are sized and
 * deadlines set by it. Knows counts and milliseconds; knows nothing of sequences or GPUs.
 */

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

/** Milliseconds per step, and per row and row × position of prefill, of decoding and of dense spans. */
const GUESS = [5, 7.5, 1e-4, 20, 1e-3, 20, 1e-3] as const;

/** What the guess weighs, in steps: little, so that a few real ones outvote it. */
const GUESS_WEIGHT = 0.01;

/** Weight that a step keeps when the next one is learnt: the last 100 or so count. */
const MEMORY = 0.99;

/** A step this much slower than expected is believed only so far: it may have been a hiccup. */
const SURPRISE = 4;

/** Steps of a kind before what is known of it is trusted: the first ones compile shaders. */
const WARM_STEPS = 3;

const COLD_DEADLINE_MS = 120_000;
const DEADLINE_FACTOR = 5;
const DEADLINE_MARGIN_MS = 5_000;

/** Weighted non-negative least squares over relative errors, updated step by step; starts from a slow machine. */
export class CostModel {
  #weights: number[] = [...GUESS];
  /** Normal equations: Σ x xᵀ / y² and Σ x / y. */
  #gram = guessedGram();
  #moment = guessedMoment();
  #workers = 1;
  readonly #seen = new Map<RowKind, number>();

  /** @returns milliseconds, more than 0 */
  predictMs(load: StepLoad): number {
    const features = featuresOf(load);
    return Math.max(0.01, this.#weights.reduce((sum, weight, i) => sum + weight * (features[i] ?? 0), 0));
  }

  /** When to take a worker for lost, in milliseconds after the step was sent. */
  deadlineMs(load: StepLoad): number {
    if (!load.kinds.every((kind) => this.knows(kind))) return COLD_DEADLINE_MS;
    return this.predictMs(load) * DEADLINE_FACTOR + DEADLINE_MARGIN_MS;
  }

  /** Whether enough steps of a kind were seen to go by. */
  knows(kind: RowKind): boolean {
    return (this.#seen.get(kind) ?? 0) >= WARM_STEPS;
  }

  /** Takes in what a step really took. The first step of each kind is only counted: it compiled shaders. */
  learn(load: StepLoad, tookMs: number): void {
    if (load.kinds.length === 0 || !Number.isFinite(tookMs)) return;
    const first = load.kinds.some((kind) => !this.#seen.has(kind));
    for (const kind of load.kinds) this.#seen.set(kind, (this.#seen.get(kind) ?? 0) + 1);
    if (first) return;
    const y = Math.min(Math.max(tookMs, 0.01), SURPRISE * this.predictMs(load));
    const x = featuresOf(load).map((feature) => feature / y);
    this.#gram.forEach((row, i) => row.forEach((sum, j) => row[j] = MEMORY * sum + (x[i] ?? 0) * (x[j] ?? 0)));
    this.#moment.forEach((sum, i) => this.#moment[i] = MEMORY * sum + (x[i] ?? 0));
    this.#solve();
  }

  /**
   * After the workers were started anew: their shaders are cold again; what is known of speed stays while they are as
   * many as before, for they share the work.
   */
  coolDown(workers: number): void {
    this.#seen.clear();
    if (workers === this.#workers) return;
    this.#workers = workers;
    this.#weights = [...GUESS];
    this.#gram = guessedGram();
    this.#moment = guessedMoment();
  }

  /** Coordinate descent from the last solution: a direction nobody measured lately keeps its value. */
  #solve(): void {
    for (let sweep = 0; sweep < 30; sweep++) {
      this.#gram.forEach((row, i) => {
        const curvature = row[i] ?? 0;
        if (curvature < 1e-300) return;
        const gradient = row.reduce((sum, value, j) => sum + value * (this.#weights[j] ?? 0), -(this.#moment[i] ?? 0));
        this.#weights[i] = Math.max(0, (this.#weights[i] ?? 0) - gradient / curvature);
      });
    }
  }
}

function guessedGram(): number[][] {
  return GUESS.map((guess, i) => GUESS.map((_, j) => i === j ? GUESS_WEIGHT / (guess * guess) : 0));
}

function guessedMoment(): number[] {
  return GUESS.map((guess) => GUESS_WEIGHT / guess);
}

function featuresOf(load: StepLoad): readonly number[] {
  const { prefillRows, prefillContext, decodeRows, decodeContext, consecutiveRows, spanContext } = load;
  return [1, prefillRows, prefillContext, decodeRows, decodeContext, consecutiveRows, spanContext];
}
