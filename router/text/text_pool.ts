/**
 * The threads of the text side and the queue before them, so that a long prompt blocks neither the router's loop nor
 * other prompts. Owns the threads; `text_thread.ts` has what one of them does.
 */

import { RequestError } from "../errors.ts";
import type { ModelTextSource } from "./model_text.ts";
import type { TextInput, TextResults, TextService } from "./text_jobs.ts";
import { LostThreads } from "../lost_threads.ts";
import { stopping, TextThread } from "./text_thread.ts";

/** How the pool behaves. */
export interface TextPoolOptions extends ModelTextSource {
  /** At least 2. @default defaultThreads() */
  readonly threads?: number;
  /** A job that computes for longer is given up, and its thread replaced. @default 30 s */
  readonly jobMs?: number;
  /** A job that waits for longer is refused. @default 60 s */
  readonly queueMs?: number;
  /** Reading the tokenizer. @default 60 s */
  readonly loadMs?: number;
}

/** Bodies above this are large: they never take the last thread, which is kept for the small ones. */
const LARGE_BYTES = 256 << 10;

/** Each thread holds a tokenizer of its own: a few hundred megabytes for the largest vocabularies. */
const MAX_DEFAULT_THREADS = 4;

/** Half of the cores, at least 2 and at most 4. */
export function defaultThreads(cores: number = navigator.hardwareConcurrency): number {
  return Math.min(MAX_DEFAULT_THREADS, Math.max(2, Math.floor(cores / 2)));
}

interface Job {
  readonly kind: keyof TextResults;
  readonly input: TextInput;
  readonly isLarge: boolean;
  readonly settle: PromiseWithResolvers<TextResults[keyof TextResults]>;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** A fixed number of threads; jobs in the order they came, but for large ones that find only the kept thread free. */
export class TextPool implements TextService {
  readonly #queueMs: number;
  readonly #threads: readonly TextThread[];
  readonly #lost: LostThreads;
  readonly #idle: TextThread[];
  readonly #waiting: Job[] = [];
  #largeRunning = 0;
  #closed = false;

  private constructor({ threads = defaultThreads(), ...options }: TextPoolOptions) {
    const { jobMs = 30_000, queueMs = 60_000, loadMs = 60_000, ...source } = options;
    this.#queueMs = queueMs;
    const size = Math.max(2, threads);
    // As many again may compute what was given up.
    const lost = this.#lost = new LostThreads(2 * size);
    this.#threads = Array.from({ length: size }, () => new TextThread({ source, jobMs, loadMs, lost }));
    this.#idle = [...this.#threads];
  }

  /**
   * Starts the threads and waits until they have read the model's text files.
   * @throws {EngineError} `invalid_model`, `unsupported_model`
   */
  static async start(options: TextPoolOptions): Promise<TextPool> {
    const pool = new TextPool(options);
    try {
      await Promise.all(pool.#threads.map((thread) => thread.load()));
    } catch (error) {
      pool.close();
      throw error;
    }
    return pool;
  }

  run<Kind extends keyof TextResults>(kind: Kind, input: TextInput): Promise<TextResults[Kind]> {
    if (input.signal?.aborted) return Promise.reject(input.signal.reason);
    if (this.#closed) return Promise.reject(stopping());
    const settle = Promise.withResolvers<TextResults[keyof TextResults]>();
    const timer = setTimeout(() => {
      const why = `Cannot prepare the request: it waited over ${this.#queueMs} ms`;
      this.#drop(job, new RequestError("queue_timeout", why));
    }, this.#queueMs);
    const job: Job = { kind, input, isLarge: input.bytes.byteLength > LARGE_BYTES, settle, timer };
    const leave = () => this.#drop(job, input.signal?.reason);
    input.signal?.addEventListener("abort", leave);
    // The signal lives as long as the answer; the job and its tokens must not.
    const done = () => input.signal?.removeEventListener("abort", leave);
    settle.promise.then(done, done);
    this.#waiting.push(job);
    this.#advance();
    // A thread answers each kind of job with its own kind of result.
    return settle.promise as Promise<TextResults[Kind]>;
  }

  /** Ends the threads; jobs not done fail with `draining`. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const job of [...this.#waiting]) this.#drop(job, stopping());
    for (const thread of this.#threads) thread.close();
    this.#lost.close();
  }

  #advance(): void {
    for (;;) {
      const keepsOne = this.#largeRunning >= this.#threads.length - 1;
      const at = this.#waiting.findIndex(({ isLarge }) => !isLarge || !keepsOne);
      const job = this.#waiting[at];
      const thread = job === undefined ? undefined : this.#idle.pop();
      if (job === undefined || thread === undefined) return;
      this.#waiting.splice(at, 1);
      clearTimeout(job.timer);
      this.#work(thread, job);
    }
  }

  #work(thread: TextThread, { kind, input, isLarge, settle }: Job): void {
    if (isLarge) this.#largeRunning++;
    thread.run(kind, input).then(settle.resolve, settle.reject).finally(() => {
      if (isLarge) this.#largeRunning--;
      this.#idle.push(thread);
      this.#advance();
    });
  }

  #drop(job: Job, reason: unknown): void {
    const at = this.#waiting.indexOf(job);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    clearTimeout(job.timer);
    job.settle.reject(reason);
  }
}
