/**
 * A kind of log line that strangers can cause: the first is written at once, then one for all of a period, so that none
 * fills the log.
 */

const PERIOD_MS = 10_000;

/** Of one event; `close` must be called. */
export class RateLimitedLog {
  readonly #event: string;
  readonly #write: (line: string) => void;
  readonly #periodMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #unwritten = 0;
  #last = "";

  /**
   * @param event what happens, as a sentence without its end
   * @param periodMs at most one line in this time @default 10000
   */
  constructor(event: string, write: (line: string) => void, periodMs: number = PERIOD_MS) {
    this.#event = event;
    this.#write = write;
    this.#periodMs = periodMs;
  }

  /** It happened, for this reason. */
  record({ message }: Error): void {
    if (this.#timer === undefined) {
      this.#write(`${this.#event}: ${message}`);
      this.#timer = setTimeout(() => this.#endPeriod(), this.#periodMs);
      return;
    }
    this.#unwritten++;
    this.#last = message;
  }

  /** Writes what is left. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#summarize();
  }

  #endPeriod(): void {
    this.#timer = this.#unwritten === 0 ? undefined : setTimeout(() => this.#endPeriod(), this.#periodMs);
    this.#summarize();
  }

  #summarize(): void {
    if (this.#unwritten === 0) return;
    this.#write(`${this.#event} (${this.#unwritten} times more within ${this.#periodMs} ms), last: ${this.#last}`);
    this.#unwritten = 0;
  }
}
