/** A stream of an answer as it arrives: events with their times. Knows the wire; knows nothing of who sends it. */

import type { ErrorBody } from "../../router/errors.ts";

/** What an answer costs, as on the wire. */
export interface UsageBody {
  readonly "prompt_tokens": number;
  readonly "completion_tokens": number;
  readonly "total_tokens": number;
  readonly "prompt_tokens_details": { readonly "cached_tokens": number };
  readonly attention: {
    readonly mode: "dense" | "sparse";
    readonly budget: number | "auto" | null;
    readonly coverage?: number;
    readonly "select_layers": readonly number[];
    readonly context: number;
    readonly "rows_read_per_token": number;
  };
}

/** A chunk of either kind of answer, or an error. */
export interface StreamChunk extends Partial<ErrorBody> {
  readonly choices?: readonly {
    readonly index: number;
    readonly text?: string;
    readonly delta?: { readonly role?: string; readonly content?: string };
    readonly "token_ids"?: readonly number[];
    readonly "finish_reason": string | null;
  }[];
  readonly usage?: UsageBody | null;
}

/** One event, and when it came (`performance.now()`). */
export type SseEvent =
  & { readonly atMs: number }
  & (
    | { readonly kind: "comment"; readonly text: string }
    | { readonly kind: "chunk"; readonly chunk: StreamChunk }
    | { readonly kind: "done" }
  );

/** Reads one stream; collects what was read. */
export class SseReader {
  readonly events: SseEvent[] = [];
  readonly #body: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #ended = false;

  constructor(body: ReadableStream<Uint8Array>) {
    this.#body = body.getReader();
  }

  /** The text so far, of one choice. */
  text(index = 0): string {
    return this.#choices(index).map((choice) => choice.text ?? choice.delta?.content ?? "").join("");
  }

  /** When each chunk with text of a choice came. */
  get tokenTimes(): readonly number[] {
    return this.events.flatMap((event) =>
      event.kind === "chunk" && event.chunk.choices?.some((choice) => choice.text || choice.delta?.content)
        ? [event.atMs]
        : []
    );
  }

  get comments(): readonly string[] {
    return this.events.flatMap((event) => event.kind === "comment" ? [event.text] : []);
  }

  get finishReason(): string | undefined {
    return this.#choices(0).findLast((choice) => choice.finish_reason !== null)?.finish_reason ?? undefined;
  }

  get usage(): UsageBody | undefined {
    return this.#chunks().findLast((chunk) => chunk.usage)?.usage ?? undefined;
  }

  get error(): ErrorBody["error"] | undefined {
    return this.#chunks().findLast((chunk) => chunk.error)?.error;
  }

  /** Whether the stream said itself that it is over. */
  get done(): boolean {
    return this.events.at(-1)?.kind === "done";
  }

  /** Reads until a condition holds. @returns whether it did before the stream ended */
  async until(condition: () => boolean): Promise<boolean> {
    while (!condition()) {
      if (this.#ended) return false;
      const { done, value } = await this.#body.read();
      this.#ended = done;
      this.#take(this.#decoder.decode(value, { stream: !done }));
    }
    return true;
  }

  /** Reads to the end. */
  async finish(): Promise<this> {
    await this.until(() => false);
    return this;
  }

  /** Leaves: the connection is closed. */
  async leave(): Promise<void> {
    await this.#body.cancel();
  }

  #take(text: string): void {
    const frames = (this.#rest + text).split("\n\n");
    this.#rest = frames.pop() ?? "";
    const atMs = performance.now();
    for (const frame of frames) {
      if (frame.startsWith(": ")) this.events.push({ atMs, kind: "comment", text: frame.slice(2) });
      else if (frame === "data: [DONE]") this.events.push({ atMs, kind: "done" });
      else this.events.push({ atMs, kind: "chunk", chunk: JSON.parse(frame.slice("data: ".length)) });
    }
  }

  #chunks(): readonly StreamChunk[] {
    return this.events.flatMap((event) => event.kind === "chunk" ? [event.chunk] : []);
  }

  #choices(index: number) {
    return this.#chunks().flatMap((chunk) => chunk.choices ?? []).filter((choice) => choice.index === index);
  }
}
