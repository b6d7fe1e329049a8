/**
 * The bounded queue of events from a sequence to its reader, as an async iterator. A full queue is how a slow
 * reader pauses its own sequence. Knows events; knows nothing of how they come about.
 */

import type { GenerationEvent } from "./generation.ts";

interface Reader {
  readonly resolve: (result: IteratorResult<GenerationEvent>) => void;
  readonly reject: (reason: unknown) => void;
}

/** What the owner learns about the reader. */
export interface EventQueueHooks {
  /** A queue that was full has room again. */
  readonly onRoom: () => void;
  /** The reader left before the end. */
  readonly onLeave: () => void;
}

/** One writer, one reader. */
export class EventQueue implements AsyncIterableIterator<GenerationEvent> {
  readonly #capacity: number;
  readonly #hooks: EventQueueHooks;
  #events: GenerationEvent[] = [];
  #readers: Reader[] = [];
  #full = false;
  #end: { readonly error: Error | undefined } | undefined;

  constructor(capacity: number, hooks: EventQueueHooks) {
    this.#capacity = capacity;
    this.#hooks = hooks;
  }

  /**
   * Whether the writer should wait; an event pushed nevertheless is kept. Once full, it has room when half is read:
   * resuming may mean rebuilding the sequence, which a single event is not worth.
   */
  get full(): boolean {
    return this.#full;
  }

  /** Hands an event to the reader; after the end it is dropped. Of unread progress only the newest is kept. */
  push(event: GenerationEvent): void {
    if (this.#end !== undefined) return;
    if (event.kind === "prefill" && this.#events.at(-1)?.kind === "prefill") this.#events.pop();
    const reader = this.#readers.shift();
    if (reader === undefined) {
      this.#events.push(event);
      this.#full ||= this.#events.length >= this.#capacity;
    } else reader.resolve({ done: false, value: event });
  }

  /** Ends the stream after the events still queued, with an error if there is one. */
  end(error?: Error): void {
    if (this.#end !== undefined) return;
    this.#end = { error };
    for (const reader of this.#readers.splice(0)) this.#finish(reader);
  }

  /** Ends the stream at once: what is queued is dropped. */
  cut(): void {
    this.#events = [];
    this.end();
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<GenerationEvent> {
    return this;
  }

  next(): Promise<IteratorResult<GenerationEvent>> {
    const value = this.#events.shift();
    if (value !== undefined) {
      if (this.#full && this.#events.length <= this.#capacity / 2) {
        this.#full = false;
        this.#hooks.onRoom();
      }
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      const reader = { resolve, reject };
      if (this.#end === undefined) this.#readers.push(reader);
      else this.#finish(reader);
    });
  }

  return(): Promise<IteratorResult<GenerationEvent>> {
    this.#hooks.onLeave();
    this.cut();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** The error goes to one reader, once; a reader that asks again gets the end. */
  #finish(reader: Reader): void {
    const error = this.#end?.error;
    this.#end = { error: undefined };
    if (error === undefined) reader.resolve({ done: true, value: undefined });
    else reader.reject(error);
  }
}
