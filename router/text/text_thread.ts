/**
 * One thread that parses bodies, renders templates and tokenizes. Owns the thread and the deadlines of loading and of
 * a job; a thread that is late or dies is replaced at the next use. `text_pool.ts` decides who gets it when.
 */

import { RequestError } from "../errors.ts";
import type { LostThreads } from "../lost_threads.ts";
import type { ModelTextSource } from "./model_text.ts";
import {
  type FromTextWorker,
  type TextInput,
  type TextResults,
  type ToTextWorker,
  unflattenError,
} from "./text_jobs.ts";

/** How a thread behaves. */
export interface TextThreadOptions {
  readonly source: ModelTextSource;
  /** A job that computes for longer is given up, and the thread replaced. */
  readonly jobMs: number;
  /** Reading the tokenizer. */
  readonly loadMs: number;
  /** Takes threads that are late: those of a pool together. */
  readonly lost: LostThreads;
}

/** What the thread works on; it answers once. */
interface Pending {
  readonly settle: PromiseWithResolvers<FromTextWorker>;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** A thread that does one job at a time: when it dies, only that job is lost. */
export class TextThread {
  readonly #options: TextThreadOptions;
  #worker: Worker | undefined;
  #pending: Pending | undefined;
  #closed = false;

  /** Starts nothing yet. */
  constructor(options: TextThreadOptions) {
    this.#options = options;
  }

  /**
   * Starts the thread, unless it runs, and waits until it has read the model's text files.
   * @throws {EngineError} `invalid_model`, `unsupported_model`
   * @throws {RequestError} `deadline_exceeded`; `queue_full` while too many late threads still compute; `draining` after `close`
   */
  async load(): Promise<void> {
    if (this.#closed) throw stopping();
    if (this.#worker !== undefined) return;
    const { lost } = this.#options;
    if (lost.isFull) {
      const message = `Cannot prepare the request: ${lost.size} jobs that took too long still compute`;
      throw new RequestError("queue_full", message);
    }
    const worker = this.#worker = new Worker(new URL("./text_worker.ts", import.meta.url), {
      type: "module",
      name: "text",
    });
    worker.onmessage = (event: MessageEvent<FromTextWorker>) => this.#settle()?.resolve(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#stop(new Error(`The text thread died: ${event.message}`));
    };
    const { source, loadMs } = this.#options;
    try {
      await this.#ask({ kind: "load", source }, { deadlineMs: loadMs, late: "Cannot load the tokenizer" });
    } catch (error) {
      this.#stop(error);
      throw error;
    }
  }

  /**
   * Does a job; no other may be under way.
   * @throws {CodedError} what the job threw; `deadline_exceeded`; what {@link TextThread.load} throws
   */
  async run<Kind extends keyof TextResults>(job: Kind, { bytes, context }: TextInput): Promise<TextResults[Kind]> {
    await this.load();
    const { jobMs } = this.#options;
    const late = "Cannot prepare the request: making tokens";
    const answer = await this.#ask({ kind: "job", job, bytes, context }, {
      deadlineMs: jobMs,
      late,
      transfer: [bytes.buffer],
    });
    // The thread answers each kind of job with its own kind of result.
    if (answer.kind === "done") return answer.result as TextResults[Kind];
    throw new Error(`The text thread answered a job with "${answer.kind}"`);
  }

  /** Ends the thread; a job under way fails with `draining`. */
  close(): void {
    this.#closed = true;
    this.#stop(stopping());
  }

  /** Sends a message and waits for the answer; a thread that is late is given up. */
  async #ask(
    message: ToTextWorker,
    { deadlineMs, late, transfer = [] }: {
      readonly deadlineMs: number;
      readonly late: string;
      readonly transfer?: Transferable[];
    },
  ): Promise<FromTextWorker> {
    const worker = this.#worker;
    if (worker === undefined) throw this.#closed ? stopping() : new Error(`${late} found no thread`);
    const settle = Promise.withResolvers<FromTextWorker>();
    const timer = setTimeout(() => {
      this.#worker = undefined;
      this.#options.lost.add(worker);
      this.#stop(new RequestError("deadline_exceeded", `${late} took over ${deadlineMs} ms`));
    }, deadlineMs);
    this.#pending = { settle, timer };
    worker.postMessage(message, transfer);
    const answer = await settle.promise;
    if (answer.kind === "failed") throw unflattenError(answer.error);
    return answer;
  }

  #stop(reason: unknown): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#settle()?.reject(reason);
  }

  /** Takes what is pending, which ends its deadline. */
  #settle(): PromiseWithResolvers<FromTextWorker> | undefined {
    const pending = this.#pending;
    this.#pending = undefined;
    clearTimeout(pending?.timer);
    return pending?.settle;
  }
}

/** The error of jobs that come while the service is ending. */
export function stopping(): RequestError {
  return new RequestError("draining", "Cannot prepare the request: the service is stopping");
}
