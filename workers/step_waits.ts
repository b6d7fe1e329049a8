/**
 * What one running step waits for, since when, and until when. Knows deadlines; knows nothing of messages.
 */

import { PeerError } from "./errors.ts";

/** A peer by its index, or the router. */
export type Sender = number | "router";

/** Something that a peer or the router has yet to do. */
export interface Wait<Answer> {
  readonly on: Sender;
  /** What it has not done, as errors say it. */
  readonly what: string;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: PeerError) => void;
}

/** What a step is begun with. */
export interface StepWaitsOptions {
  readonly index: number;
  readonly deadlineMs: number;
  /** Half of the time that was left for a wait is over, and again while it lasts; empty: the router keeps the worker waiting. */
  readonly onStalled: (step: number, on: readonly number[]) => void;
}

/** What is left of a step when it is no longer worth looking whether anything stalls. */
const MIN_LEFT_MS = 10;

/** The waits of one step; `end` must be called. */
export class StepWaits<Answer> {
  readonly #options: StepWaitsOptions;
  /** And since when each lasts. */
  readonly #waits = new Map<string, Wait<Answer> & { readonly since: number }>();
  /** `performance.now()` at the deadline. */
  readonly #endsAt: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  #stallTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: StepWaitsOptions) {
    this.#options = options;
    const now = performance.now();
    this.#endsAt = now + options.deadlineMs;
    this.#timer = setTimeout(() => this.#late(), options.deadlineMs);
    this.#watch(now);
  }

  /** Adds a wait, which is over at once when the deadline has passed. */
  add(key: string, wait: Wait<Answer>): void {
    // The timer may have gone off while nothing waited: it will not do so again.
    const now = performance.now();
    if (now >= this.#endsAt) return wait.reject(this.#lateness(wait));
    this.#waits.set(key, { ...wait, since: now });
  }

  /** Takes a wait out, whose answer is there. */
  take(key: string): Wait<Answer> | undefined {
    const wait = this.#waits.get(key);
    this.#waits.delete(key);
    return wait;
  }

  /** The step is over: nothing has a deadline any more, and what still waits gets the reason. */
  end(reason: PeerError): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#stallTimer);
    this.#fail(() => reason);
  }

  /**
   * Looks for a stall at half of the time that was left at `since`. One timer serves all waits of a step, which are many and short:
   * none of them can be due before it goes off.
   */
  #watch(since: number): void {
    const dueAt = (since + this.#endsAt) / 2;
    this.#stallTimer = setTimeout(() => this.#look(), Math.max(0, dueAt - performance.now()));
  }

  #look(): void {
    const now = performance.now();
    const isDue = ({ since }: { readonly since: number }) => now >= (since + this.#endsAt) / 2;
    const waits = [...this.#waits.values()];
    const due = waits.filter(isDue);
    if (due.length > 0) {
      const on = due.flatMap(({ on }) => on === "router" ? [] : [on]);
      this.#options.onStalled(this.#options.index, [...new Set(on)]);
    }
    const next = Math.min(now, ...waits.filter((wait) => !isDue(wait)).map(({ since }) => since));
    if (this.#endsAt - now > MIN_LEFT_MS) this.#watch(next);
  }

  #late(): void {
    clearTimeout(this.#stallTimer);
    this.#fail((wait) => this.#lateness(wait));
  }

  #fail(reasonOf: (wait: Wait<Answer>) => PeerError): void {
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    for (const wait of waits) wait.reject(reasonOf(wait));
  }

  #lateness({ on, what }: Wait<Answer>): PeerError {
    const { index, deadlineMs } = this.#options;
    const who = on === "router" ? "the router" : `worker ${on}`;
    const message = `Cannot finish step ${index}: ${who} has not ${what} within ${deadlineMs} ms`;
    return new PeerError("peer_late", message, on === "router" ? {} : { peer: on });
  }
}
