/**
 * Server-sent events: frames to a response body that keeps itself alive and never runs ahead of its reader.
 * Knows text and time; knows nothing of what the frames say.
 */

/** Headers of every event stream; the last one stops nginx from buffering it. */
export const SSE_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
};

/** The frame after which clients stop reading. */
export const SSE_DONE = "data: [DONE]\n\n";

const KEEP_ALIVE = ": keep-alive\n\n";

/** One unnamed event; JSON has no raw line breaks, so it is one line. */
export function sseData(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** One named event, for the APIs whose clients go by the names of events. */
export function sseEvent(name: string, value: unknown): string {
  return `event: ${name}\n${sseData(value)}`;
}

/** One comment: parsers skip it, people and idle timers do not. */
export function sseComment(text: string): string {
  return `: ${text}\n\n`;
}

/** How an event stream behaves in time, and what it reports to. */
export interface SseOptions {
  /** A comment is written after so much silence. */
  readonly keepAliveMs: number;
  /** A reader that takes nothing for so long counts as gone. */
  readonly stallMs: number;
  /** Aborted when the client is gone: the server may then drop the body without cancelling it. */
  readonly signal: AbortSignal;
  readonly onKeepAlive: () => void;
  /** The reader left or stalled: whatever makes the frames should stop. Not called when they end by themselves. */
  readonly onCancel: () => void;
}

/** Pulls frames only as fast as the reader takes them, so a slow client holds at most one frame here. */
class SseSource implements UnderlyingDefaultSource<Uint8Array> {
  readonly #frames: AsyncIterator<string>;
  readonly #options: SseOptions;
  readonly #encoder = new TextEncoder();
  #next: Promise<IteratorResult<string>> | undefined;
  #stallTimer: ReturnType<typeof setTimeout> | undefined;
  #over = false;
  readonly #onAbort = () => this.cancel();

  constructor(frames: AsyncIterator<string>, options: SseOptions) {
    this.#frames = frames;
    this.#options = options;
  }

  /** The first bytes go out at once: proxies and clients see headers and life before the first token. */
  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    const { signal } = this.#options;
    if (signal.aborted) return void this.cancel();
    signal.addEventListener("abort", this.#onAbort);
    controller.enqueue(this.#encoder.encode(KEEP_ALIVE));
    this.#awaitReader(controller);
  }

  async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    clearTimeout(this.#stallTimer);
    this.#next ??= this.#frames.next();
    const result = await this.#withKeepAlive(this.#next);
    if (this.#over) return;
    if (result === undefined) {
      controller.enqueue(this.#encoder.encode(KEEP_ALIVE));
      this.#options.onKeepAlive();
    } else {
      this.#next = undefined;
      if (result.done) {
        this.#end();
        controller.close();
        return;
      }
      controller.enqueue(this.#encoder.encode(result.value));
    }
    this.#awaitReader(controller);
  }

  async cancel(): Promise<void> {
    if (this.#over) return;
    this.#end();
    this.#options.onCancel();
    await this.#frames.return?.();
  }

  #end(): void {
    this.#over = true;
    clearTimeout(this.#stallTimer);
    this.#options.signal.removeEventListener("abort", this.#onAbort);
  }

  /** The next frame, or undefined when silence lasted too long. */
  async #withKeepAlive(next: Promise<IteratorResult<string>>): Promise<IteratorResult<string> | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), this.#options.keepAliveMs);
    });
    try {
      return await Promise.race([next, silence]);
    } finally {
      clearTimeout(timer);
    }
  }

  #awaitReader(controller: ReadableStreamDefaultController<Uint8Array>): void {
    // Writing to a client that is gone cancels the stream while the frame is still being handed over.
    if (this.#over) return;
    this.#stallTimer = setTimeout(async () => {
      controller.error(new DOMException("The client stopped reading", "TimeoutError"));
      await this.cancel();
    }, this.#options.stallMs);
  }
}

/**
 * A response body made of frames.
 * @param frames each a whole frame, line breaks included; must turn its own failures into a last frame
 */
export function sseStream(frames: AsyncIterator<string>, options: SseOptions): ReadableStream<Uint8Array> {
  // 0: nothing is made before the reader asks for it.
  return new ReadableStream(new SseSource(frames, options), { highWaterMark: 0 });
}
