/**
 * Ends a growing text at the first stop string, wherever the pieces it arrives in are cut. Holds back the end of the
 * text for as long as it may become a stop string. Knows text; knows nothing of tokens.
 */

/** What became certain with a piece of text. */
export interface Released {
  /** Text that can be sent on; may be empty. */
  readonly text: string;
  /** The stop string that ended the text; whatever comes after it is dropped. */
  readonly stopped: string | undefined;
}

/** How a text is ended. */
export interface StopOptions {
  /** Whether the stop string itself belongs to the text. @default false */
  readonly includeStop?: boolean;
}

/** Watches one text. */
export class StopStrings {
  readonly #stops: readonly string[];
  readonly #includeStop: boolean;
  #held = "";
  #stopped: string | undefined;

  /**
   * Begins a text.
   *
   * @param stops empty strings among them are ignored
   */
  constructor(stops: readonly string[], { includeStop = false }: StopOptions = {}) {
    this.#stops = stops.filter((stop) => stop !== "");
    this.#includeStop = includeStop;
  }

  /**
   * Takes the next piece. Of several stop strings, the one that is complete first wins; of those complete at the same
   * character, the longest. After a stop, nothing more is released.
   */
  push(piece: string): Released {
    if (this.#stopped !== undefined) return { text: "", stopped: this.#stopped };
    const text = this.#held + piece;
    const match = this.#firstMatch(text);
    if (match !== undefined) {
      this.#held = "";
      this.#stopped = match.stop;
      return {
        text: text.slice(0, this.#includeStop ? match.end : match.end - match.stop.length),
        stopped: match.stop,
      };
    }
    const certain = text.length - this.#pending(text);
    this.#held = text.slice(certain);
    return { text: text.slice(0, certain), stopped: undefined };
  }

  /** Ends the text. @returns what was held back and did not become a stop string */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  #firstMatch(text: string): { readonly stop: string; readonly end: number } | undefined {
    let best: { readonly stop: string; readonly end: number } | undefined;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      const isBetter = best === undefined || end < best.end || end === best.end && stop.length > best.stop.length;
      if (isBetter) best = { stop, end };
    }
    return best;
  }

  /** Length of the longest end of `text` that begins some stop string. */
  #pending(text: string): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(text.length - length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
