/**
 * Short jobs of a grammar thread and their masks, in memory that both sides share: a message and its answer take 0.16 ms
 * and as much of a core, waking a thread that waits takes 0.04 ms and a tenth of it (idle machine of two cores).
 * Longer jobs go as messages; who posts them says so here, because a thread that waits receives none. Knows words and
 * turns; knows nothing of grammars.
 */

/** The mask after one more token, or after a few. */
export interface ShortJob {
  readonly id: number;
  readonly matcher: number;
  /** @see `GrammarJob` */
  readonly keep: number;
  readonly tokens: Uint32Array;
}

/** A job as the thread finds it, and where its mask goes. */
export interface PostedJob extends ShortJob {
  /** All zero. */
  readonly mask: Uint32Array;
}

/** Most tokens of a short job. */
const MAX_TOKENS = 8;

/** Jobs that may be posted and not taken back; a power of two, because counters wrap around. */
const SLOTS = 64;

/** Words before the slots, counters of the two sides. */
const HEADER = { signal: 0, posted: 1, messages: 2, done: 16, closed: 17, words: 32 } as const;

/** Words of a slot before its mask. */
const SLOT = { state: 0, id: 1, matcher: 2, keep: 3, messages: 4, count: 5, tokens: 8, words: 16 } as const;

const [POSTED, DONE, FAILED] = [1, 2, 3];

/** One memory, as each side sees it. Counters are i32 and wrap around. */
abstract class MaskSlots {
  readonly memory: SharedArrayBuffer;
  protected readonly counters: Int32Array;
  readonly #slotWords: number;

  protected constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.counters = new Int32Array(memory);
    this.#slotWords = (this.counters.length - HEADER.words) / SLOTS;
  }

  protected fields(job: number): Int32Array {
    return new Int32Array(this.memory, 4 * this.#at(job), SLOT.words);
  }

  protected mask(job: number): Uint32Array {
    return new Uint32Array(this.memory, 4 * (this.#at(job) + SLOT.words), this.#slotWords - SLOT.words);
  }

  #at(job: number): number {
    return HEADER.words + (job & (SLOTS - 1)) * this.#slotWords;
  }
}

/** The side that asks. */
export class MaskRequests extends MaskSlots {
  readonly #words: number;
  #posted = 0;
  #taken = 0;
  /** Jobs that were over. */
  #seen = 0;

  /** @param words of a mask */
  constructor(words: number) {
    super(new SharedArrayBuffer(4 * (HEADER.words + SLOTS * (SLOT.words + words))));
    this.#words = words;
  }

  /** Whether a job fits, and there is room for one more. */
  canPost({ tokens, words }: { readonly tokens: Uint32Array; readonly words: number }): boolean {
    const hasRoom = ((this.#posted - this.#taken) | 0) < SLOTS;
    return hasRoom && tokens.length <= MAX_TOKENS && words === this.#words;
  }

  /** Posts a job and wakes the thread. */
  post({ id, matcher, keep, tokens }: ShortJob): void {
    const fields = this.fields(this.#posted);
    fields[SLOT.id] = id;
    fields[SLOT.matcher] = matcher;
    fields[SLOT.keep] = keep;
    fields[SLOT.messages] = Atomics.load(this.counters, HEADER.messages);
    fields[SLOT.count] = tokens.length;
    fields.set(tokens, SLOT.tokens);
    Atomics.store(fields, SLOT.state, POSTED);
    this.#posted = (this.#posted + 1) | 0;
    Atomics.store(this.counters, HEADER.posted, this.#posted);
    this.#signal();
  }

  /** A message was posted: the thread must return to its event loop. */
  messagePosted(): void {
    Atomics.add(this.counters, HEADER.messages, 1);
    this.#signal();
  }

  /** The mask of the oldest job that was not taken, a copy; undefined: it is computed, or failed. */
  take(): Uint32Array<ArrayBuffer> | undefined {
    if (Atomics.load(this.fields(this.#taken), SLOT.state) !== DONE) return undefined;
    const mask = Uint32Array.from(this.mask(this.#taken));
    this.skip();
    return mask;
  }

  /** A message said that the oldest job that was not taken has failed. */
  skip(): void {
    this.#taken = (this.#taken + 1) | 0;
  }

  /** Resolves when more jobs are over than when it resolved last, or at `close`. */
  async changed(): Promise<void> {
    await Atomics.waitAsync(this.counters, HEADER.done, this.#seen).value;
    this.#seen = Atomics.load(this.counters, HEADER.done);
  }

  /** Lets the thread go: one that waits cannot be terminated. */
  close(): void {
    Atomics.store(this.counters, HEADER.closed, 1);
    this.#signal();
    Atomics.notify(this.counters, HEADER.done);
  }

  #signal(): void {
    Atomics.add(this.counters, HEADER.signal, 1);
    Atomics.notify(this.counters, HEADER.signal);
  }
}

/** The thread's side. */
export class MaskAnswers extends MaskSlots {
  #next = 0;
  #messages = 0;

  /** @param memory of the side that asks */
  constructor(memory: SharedArrayBuffer) {
    super(memory);
  }

  /** Whether the other side has let go. */
  get isClosed(): boolean {
    return Atomics.load(this.counters, HEADER.closed) !== 0;
  }

  /** A message that came after the memory was dealt with. */
  messageHandled(): void {
    this.#messages = (this.#messages + 1) | 0;
  }

  /**
   * The next job whose turn it is; waits for one.
   * @returns undefined when a message comes first, or when the other side has closed
   */
  next(): PostedJob | undefined {
    while (!this.isClosed) {
      const signal = Atomics.load(this.counters, HEADER.signal);
      const job = this.#ready();
      if (job !== undefined) return job;
      if (Atomics.load(this.counters, HEADER.messages) !== this.#messages) return undefined;
      Atomics.wait(this.counters, HEADER.signal, signal);
    }
    return undefined;
  }

  /** The job that `next` gave is over: its mask is there, or a message, posted after this, says why not. */
  finish(end: "done" | "failed"): void {
    Atomics.store(this.fields(this.#next), SLOT.state, end === "done" ? DONE : FAILED);
    this.#next = (this.#next + 1) | 0;
    Atomics.store(this.counters, HEADER.done, this.#next);
    Atomics.notify(this.counters, HEADER.done);
  }

  #ready(): PostedJob | undefined {
    if (Atomics.load(this.counters, HEADER.posted) === this.#next) return undefined;
    const fields = this.fields(this.#next);
    if (fields[SLOT.messages] !== this.#messages) return undefined;
    const [id = 0, matcher = 0, keep = 0] = fields.subarray(SLOT.id);
    const tokens = Uint32Array.from(fields.subarray(SLOT.tokens, SLOT.tokens + (fields[SLOT.count] ?? 0)));
    return { id, matcher, keep, tokens, mask: this.mask(this.#next).fill(0) };
  }
}
