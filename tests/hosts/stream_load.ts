/** Streams without a pause, several at a time, and whether each ended as it should. */

import { SseReader } from "../support/sse_reader.ts";
import { until } from "../support/until.ts";

const REQUEST = {
  prompt: Array.from({ length: 100 }, (_, i) => 5 + i % 200),
  "max_tokens": 40,
  "ignore_eos": true,
  temperature: 0,
  stream: true,
  attention: { mode: "dense" },
};

/** After that, waiting is pointless. */
const MAX_FAILED = 20;
const MORE_MS = 120_000;

/** What became of the streams. */
export interface LoadResult {
  readonly ended: number;
  /** With the text of an undisturbed stream; another group may add in another order, and part from it at a tie. */
  readonly equal: number;
  /** Ended otherwise than with all of their tokens: what was said. */
  readonly failed: readonly string[];
  /** From one token to the next, on average, of those that came within the time asked for; undefined when none did. */
  readonly tokenMs: number | undefined;
  /** The longest time between two tokens of a stream. */
  readonly longestPauseMs: number;
}

/** Runs from its making until `stop`. */
export class StreamLoad {
  readonly #url: string;
  readonly #loops: readonly Promise<void>[];
  #expected: string | undefined;
  #isOver = false;
  #ended = 0;
  #equal = 0;
  #failed: string[] = [];
  #longestPauseMs = 0;
  readonly #pauses: { readonly atMs: number; readonly ms: number }[] = [];

  constructor(url: string, streams: number) {
    this.#url = url;
    this.#loops = Array.from({ length: streams }, () => this.#loop());
  }

  /** Waits until so many more streams have ended well than had when this was called. */
  async more(streams: number): Promise<void> {
    const wanted = this.#ended + streams;
    await until(() => this.#ended >= wanted || this.#failed.length >= MAX_FAILED, MORE_MS);
  }

  /** Lets what runs end. The tokens between two moments of `performance.now()` count for `tokenMs`. */
  async stop(fromMs = 0, toMs = Infinity): Promise<LoadResult> {
    this.#isOver = true;
    await Promise.all(this.#loops);
    const pauses = this.#pauses.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
    return {
      ended: this.#ended,
      equal: this.#equal,
      failed: this.#failed,
      tokenMs: pauses.length === 0 ? undefined : pauses.reduce((sum, { ms }) => sum + ms, 0) / pauses.length,
      longestPauseMs: this.#longestPauseMs,
    };
  }

  async #loop(): Promise<void> {
    while (!this.#isOver) {
      const problem = await this.#stream().catch((error) => String(error));
      if (problem !== undefined) this.#failed.push(problem);
    }
  }

  /** @returns what went wrong */
  async #stream(): Promise<string | undefined> {
    const response = await fetch(`${this.#url}/v1/completions`, { method: "POST", body: JSON.stringify(REQUEST) });
    if (response.status !== 200 || response.body === null) return `${response.status} ${await response.text()}`;
    const stream = new SseReader(response.body);
    await stream.finish();
    if (stream.error !== undefined || !stream.done) return JSON.stringify(stream.error ?? "it had no end");
    if (stream.finishReason !== "length") return `it ended with ${stream.finishReason}`;
    this.#ended++;
    const text = stream.text();
    this.#expected ??= text;
    if (text === this.#expected) this.#equal++;
    for (const [i, time] of stream.tokenTimes.entries()) {
      const before = stream.tokenTimes[i - 1];
      if (before === undefined) continue;
      this.#pauses.push({ atMs: time, ms: time - before });
      this.#longestPauseMs = Math.max(this.#longestPauseMs, time - before);
    }
    return undefined;
  }
}
