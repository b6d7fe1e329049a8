/**
 * How long to wait before a worker is started again, and when to stop trying.
 * Knows moments of failure; knows nothing of processes.
 */

/** Numbers of the policy. */
export interface RestartNumbers {
  /** Wait after the first failure; doubles with each further one. */
  readonly firstDelayMs: number;
  readonly longestDelayMs: number;
  /** This many failures within the window are too many. */
  readonly failures: number;
  /** Also the time without a failure after which the wait starts small again. */
  readonly windowMs: number;
}

/** What a service uses. */
export const RESTART_NUMBERS: RestartNumbers = {
  firstDelayMs: 200,
  longestDelayMs: 10_000,
  failures: 5,
  windowMs: 60_000,
};

/** Counts the failures of one worker. */
export class RestartPolicy {
  readonly #numbers: RestartNumbers;
  #recent: number[] = [];
  #delayMs: number;

  constructor(numbers: RestartNumbers = RESTART_NUMBERS) {
    this.#numbers = numbers;
    this.#delayMs = numbers.firstDelayMs;
  }

  /**
   * Notes a failure.
   * @param nowMs a clock that never goes back, in milliseconds
   * @returns the wait before the next start, or undefined when there is to be none
   */
  failed(nowMs: number): number | undefined {
    const { firstDelayMs, longestDelayMs, failures, windowMs } = this.#numbers;
    this.#recent = [...this.#recent.filter((at) => nowMs - at < windowMs), nowMs];
    if (this.#recent.length >= failures) return undefined;
    const delayMs = this.#recent.length === 1 ? firstDelayMs : this.#delayMs;
    this.#delayMs = Math.min(2 * delayMs, longestDelayMs);
    return delayMs;
  }
}
