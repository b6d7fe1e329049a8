/**
 * The bounded queue from one watched sequence to one watcher. A slow watcher loses the oldest rows and learns how many;
 * the sequence never waits. Knows events and time; knows nothing of how they come about.
 */

import type { TideEvent, TideLayout, TideRow } from "./tide_event.ts";

/** Rows come at most this often: more than eyes can follow costs the service and shows nothing. */
const MIN_INTERVAL_MS = 50;

/** Positions in a second: many heads with a large budget come less often. */
const POSITIONS_A_MS = 200;

/** Unread events that are kept. */
const MAX_UNREAD = 16;

/** One writer, one reader. */
export class TideFeed implements AsyncIterableIterator<TideEvent> {
  readonly #onClose: () => void;
  #unread: TideEvent[] = [];
  #reader: ((result: IteratorResult<TideEvent>) => void) | undefined;
  #skipped = 0;
  #isOver = false;
  #askedAtMs = -Infinity;
  #intervalMs = MIN_INTERVAL_MS;

  /** @param onClose the reader left, or everything was read */
  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  /** A feed without events. */
  static ended(): TideFeed {
    const feed = new TideFeed(() => {});
    feed.end();
    return feed;
  }

  /** Milliseconds until the next row may be shown; 0: now. */
  get waitMs(): number {
    return Math.max(0, this.#askedAtMs + this.#intervalMs - performance.now());
  }

  /** A row was asked for; the time until the next one begins here, so that its own step counts. */
  ask(): void {
    this.#askedAtMs = performance.now();
  }

  /** A row was computed and is not shown. */
  skip(): void {
    this.#skipped++;
  }

  /** Passes an event on; a row says how many before it were left out. */
  push(event: TideLayout | Omit<TideRow, "skipped">): void {
    if (this.#isOver) return;
    if (event.kind === "layout") return this.#pass(event);
    const positions = event.layers.reduce((sum, { sets }) => sum + sets.reduce((all, set) => all + set.length, 0), 0);
    this.#intervalMs = Math.max(MIN_INTERVAL_MS, positions / POSITIONS_A_MS);
    this.#pass({ ...event, skipped: this.#skipped });
    this.#skipped = 0;
  }

  /** Nothing more comes; what is unread is still read. */
  end(): void {
    this.#isOver = true;
    this.#reader?.({ done: true, value: undefined });
    this.#reader = undefined;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<TideEvent> {
    return this;
  }

  next(): Promise<IteratorResult<TideEvent>> {
    const value = this.#unread.shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#reader = resolve);
  }

  return(): Promise<IteratorResult<TideEvent>> {
    this.#unread = [];
    this.end();
    this.#onClose();
    return Promise.resolve({ done: true, value: undefined });
  }

  #pass(event: TideEvent): void {
    const reader = this.#reader;
    this.#reader = undefined;
    if (reader !== undefined) return reader({ done: false, value: event });
    this.#unread.push(event);
    if (this.#unread.length <= MAX_UNREAD) return;
    // Where there are descriptions alone, the oldest of them goes: what has just come is never lost.
    const before = this.#unread.slice(0, -1);
    const oldest = Math.max(0, before.findIndex(({ kind }) => kind === "row"));
    const [lost] = this.#unread.splice(oldest, 1);
    if (lost?.kind !== "row") return;
    const next = this.#unread.findIndex((other, i) => i >= oldest && other.kind === "row");
    const row = this.#unread[next];
    if (row?.kind === "row") this.#unread[next] = { ...row, skipped: row.skipped + lost.skipped + 1 };
    else this.#skipped += lost.skipped + 1;
  }
}
