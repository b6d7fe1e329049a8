/**
 * The thread that parses bodies, renders templates and tokenizes, so that a long prompt never blocks the router's loop.
 * Owns the thread, its queue and its deadlines; knows nothing of what the jobs compute.
 */

import { CodedError } from "../../kernels/errors.ts";
import { RequestError, type RequestErrorCode } from "../errors.ts";
import type { PrepareContext, PreparedGeneration } from "./prepare.ts";
import type { DetokenizeAnswer, TokenizeAnswer } from "../http/tokenize.ts";

/** The jobs, and what each gives back. */
export interface TextResults {
  readonly chat: PreparedGeneration;
  readonly completion: PreparedGeneration;
  readonly tokenize: TokenizeAnswer;
  readonly detokenize: DetokenizeAnswer;
}

/** What a job is given. */
export interface TextInput {
  /** The body as it came; transferred, so it is gone for the caller. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly context: PrepareContext;
  /** Drops the job if it has not begun. */
  readonly signal?: AbortSignal;
}

/** What HTTP asks of the text side. */
export interface TextService {
  /** @throws {CodedError} what the job threw; `queue_timeout`, `deadline_exceeded` */
  run<Kind extends keyof TextResults>(kind: Kind, input: TextInput): Promise<TextResults[Kind]>;
}

/** From the owner to the thread. */
export type ToTextWorker =
  | { readonly kind: "load"; readonly directory: string; readonly stopTokens: readonly number[] | undefined }
  | {
    readonly kind: "job";
    readonly id: number;
    readonly job: keyof TextResults;
    readonly bytes: Uint8Array;
    readonly context: PrepareContext;
  };

/** An error as plain data: classes do not survive the way between threads. */
export interface FlatError {
  readonly family: "request" | "coded" | "unknown";
  readonly code: string;
  readonly message: string;
  readonly param: string | undefined;
}

/** From the thread to its owner. */
export type FromTextWorker =
  | { readonly kind: "loaded" }
  | { readonly kind: "done"; readonly id: number; readonly result: TextResults[keyof TextResults] }
  | { readonly kind: "failed"; readonly id: number | undefined; readonly error: FlatError };

/** How the thread behaves. */
export interface TextThreadOptions {
  /** Of the model: its tokenizer and chat template. */
  readonly directory: string;
  /** What ends an answer. @default what the model's configuration says */
  readonly stopTokens?: readonly number[] | undefined;
  /** A job that computes for longer is given up, and the thread replaced. @default 60 s */
  readonly jobMs?: number;
  /** A job that waits for longer is refused. @default 60 s */
  readonly queueMs?: number;
  /** Reading the tokenizer. @default 60 s */
  readonly loadMs?: number;
}

interface Job {
  readonly kind: keyof TextResults;
  readonly input: TextInput;
  readonly settle: PromiseWithResolvers<TextResults[keyof TextResults]>;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** One thread, one job at a time: when it dies, only the job it was doing is lost. */
export class TextThread implements TextService {
  readonly #options: TextThreadOptions & Required<Omit<TextThreadOptions, "stopTokens">>;
  readonly #waiting: Job[] = [];
  #worker: Worker | undefined;
  #loaded: PromiseWithResolvers<void> | undefined;
  #loadTimer: ReturnType<typeof setTimeout> | undefined;
  #running: { readonly id: number; readonly job: Job } | undefined;
  #nextId = 0;
  #closed = false;

  private constructor(options: TextThreadOptions) {
    this.#options = { jobMs: 60_000, queueMs: 60_000, loadMs: 60_000, ...options };
  }

  /**
   * Starts a thread and waits until it has read the model's text files.
   * @throws {EngineError} `invalid_model`, `unsupported_model`
   */
  static async start(options: TextThreadOptions): Promise<TextThread> {
    const thread = new TextThread(options);
    try {
      await thread.#start();
    } catch (error) {
      thread.close();
      throw error;
    }
    return thread;
  }

  run<Kind extends keyof TextResults>(kind: Kind, input: TextInput): Promise<TextResults[Kind]> {
    const settle = Promise.withResolvers<TextResults[keyof TextResults]>();
    const job: Job = { kind, input, settle, timer: undefined };
    if (input.signal?.aborted) {
      settle.reject(input.signal.reason);
    } else if (this.#closed) {
      settle.reject(new RequestError("draining", "Cannot prepare the request: the service is stopping"));
    } else {
      job.timer = setTimeout(() => {
        const why = `Cannot prepare the request: it waited over ${this.#options.queueMs} ms`;
        this.#drop(job, new RequestError("queue_timeout", why));
      }, this.#options.queueMs);
      const leave = () => this.#drop(job, input.signal?.reason);
      input.signal?.addEventListener("abort", leave);
      // The signal lives as long as the answer; the job and its tokens must not.
      const done = () => input.signal?.removeEventListener("abort", leave);
      settle.promise.then(done, done);
      this.#waiting.push(job);
      this.#advance();
    }
    // The thread answers each kind of job with its own kind of result.
    return settle.promise as Promise<TextResults[Kind]>;
  }

  /** Ends the thread; jobs not done fail with `draining`. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const error = new RequestError("draining", "Cannot prepare the request: the service is stopping");
    for (const job of [...this.#waiting]) this.#drop(job, error);
    this.#lose(error);
  }

  #start(): Promise<void> {
    const loaded = this.#loaded = Promise.withResolvers<void>();
    const worker = this.#worker = new Worker(new URL("./text_worker.ts", import.meta.url), {
      type: "module",
      name: "text",
    });
    worker.onmessage = (event: MessageEvent<FromTextWorker>) => this.#receive(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      const reason = new Error(`The text thread died: ${event.message}`);
      // One that dies while it loads would die again at once: the next job tries again.
      if (this.#loaded === undefined) this.#replace(reason);
      else this.#lose(reason);
    };
    this.#loadTimer = setTimeout(() => {
      this.#lose(new RequestError("deadline_exceeded", "Cannot load the tokenizer: the deadline has passed"));
    }, this.#options.loadMs);
    const { directory, stopTokens } = this.#options;
    this.#post({ kind: "load", directory, stopTokens });
    return loaded.promise;
  }

  #receive(message: FromTextWorker): void {
    if (message.kind === "loaded") {
      clearTimeout(this.#loadTimer);
      this.#loaded?.resolve();
      this.#loaded = undefined;
      return this.#advance();
    }
    if (message.kind === "failed" && message.id === undefined) return this.#lose(unflatten(message.error));
    const running = this.#running;
    if (running === undefined || running.id !== message.id) return;
    this.#running = undefined;
    clearTimeout(running.job.timer);
    if (message.kind === "done") running.job.settle.resolve(message.result);
    else running.job.settle.reject(unflatten(message.error));
    this.#advance();
  }

  #advance(): void {
    if (this.#running !== undefined || this.#loaded !== undefined) return;
    const job = this.#waiting.shift();
    if (job === undefined) return;
    if (this.#worker === undefined) {
      this.#waiting.unshift(job);
      return this.#restart();
    }
    clearTimeout(job.timer);
    const id = this.#nextId++;
    this.#running = { id, job };
    job.timer = setTimeout(() => {
      const why = `Cannot prepare the request: making tokens took over ${this.#options.jobMs} ms`;
      this.#replace(new RequestError("deadline_exceeded", why));
    }, this.#options.jobMs);
    const { bytes, context } = job.input;
    this.#post({ kind: "job", id, job: job.kind, bytes, context }, [bytes.buffer]);
  }

  #drop(job: Job, reason: unknown): void {
    const at = this.#waiting.indexOf(job);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    clearTimeout(job.timer);
    job.settle.reject(reason);
  }

  #replace(reason: Error): void {
    this.#lose(reason);
    if (!this.#closed) this.#restart();
  }

  /** A thread that cannot come back fails whoever waits for it; the next job tries again. */
  #restart(): void {
    this.#start().catch((error: unknown) => {
      for (const job of [...this.#waiting]) this.#drop(job, error);
    });
  }

  #lose(reason: Error): void {
    clearTimeout(this.#loadTimer);
    this.#worker?.terminate();
    this.#worker = undefined;
    const loaded = this.#loaded;
    const running = this.#running;
    this.#loaded = undefined;
    this.#running = undefined;
    clearTimeout(running?.job.timer);
    running?.job.settle.reject(reason);
    loaded?.reject(reason);
  }

  #post(message: ToTextWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }
}

function unflatten({ family, code, message, param }: FlatError): Error {
  if (family === "unknown") return new Error(message);
  if (family === "coded") return new CodedError(code, message);
  return new RequestError(code as RequestErrorCode, message, param === undefined ? {} : { param });
}
