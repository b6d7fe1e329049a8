/**
 * A thread that compiles grammars and makes masks, with a deadline for each of its jobs. It starts with its first job and
 * is replaced when a job hangs or breaks it. Owns the thread and the jobs that wait; knows nothing of requests.
 */

import { LostThreads } from "../lost_threads.ts";
import type { GrammarSpec } from "./grammar_spec.ts";
import { MaskRequests } from "./mask_slots.ts";

/** What a thread can be asked. `words`: of one mask, 32 tokens each. */
export type GrammarJob =
  /** Whether a specification can be compiled; gives the mask of its first token. */
  | { readonly kind: "check"; readonly spec: GrammarSpec; readonly words: number }
  /** The masks after the first `from` tokens of an answer, after one more, …, after all of them. */
  | {
    readonly kind: "follow";
    /** Names the answer. */
    readonly matcher: number;
    /** Undefined: the thread has followed this answer before. */
    readonly spec: GrammarSpec | undefined;
    /** Of the tokens that the thread has received, how many still hold; at most `from`. */
    readonly keep: number;
    /** Those after `keep`. */
    readonly tokens: Uint32Array;
    readonly from: number;
    readonly words: number;
  };

type FollowJob = Extract<GrammarJob, { readonly kind: "follow" }>;

/** From the owner to the thread. */
export type ToGrammarWorker =
  | { readonly kind: "load"; readonly directory: string; readonly markers: readonly string[] }
  | { readonly kind: "job"; readonly id: number; readonly job: GrammarJob }
  | { readonly kind: "forget"; readonly matcher: number }
  /** From here on short jobs come in slots of this memory. */
  | { readonly kind: "share"; readonly memory: SharedArrayBuffer };

/** From the thread to its owner. */
export type FromGrammarWorker =
  | { readonly kind: "loaded" }
  | { readonly kind: "done"; readonly id: number; readonly masks: Uint32Array<ArrayBuffer> }
  | { readonly kind: "failed"; readonly id: number | undefined; readonly compile: boolean; readonly message: string }
  /** Its memory was closed, and nothing is computed any more: a thread that was given up can be ended. */
  | { readonly kind: "free" };

/** Why a job has no result. */
export type GrammarFailure = "compile" | "token" | "deadline" | "lost" | "busy" | "closed";

/** A job that failed. */
export class GrammarThreadError extends Error {
  readonly failure: GrammarFailure;

  constructor(failure: GrammarFailure, message: string) {
    super(message);
    this.failure = failure;
  }
}

/** What a thread is made of. */
export interface GrammarThreadOptions {
  /** Of the model. */
  readonly directory: string;
  /** Special tokens that are text in grammars. */
  readonly markers: readonly string[];
  /** A job that computes for longer is given up. */
  readonly jobMs: number;
  /** Loading the library and the vocabulary. */
  readonly loadMs: number;
}

interface Waiting extends PromiseWithResolvers<Uint32Array<ArrayBuffer>> {
  readonly id: number;
  /** Whether its mask comes in a slot. */
  readonly inSlot: boolean;
}

/** Grammars that took too long and still compile, at most: each keeps a core busy. */
const MAX_LOST = 2;

/** One thread; jobs are done in the order in which they were given. */
export class GrammarThread {
  readonly #options: GrammarThreadOptions;
  readonly #waiting: Waiting[] = [];
  readonly #lost = new LostThreads(MAX_LOST);
  #worker: Worker | undefined;
  /** Of the worker; undefined: there was no short job yet. */
  #slots: MaskRequests | undefined;
  #isLoaded = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #nextId = 0;
  #incarnation = 0;
  #closed = false;

  constructor(options: GrammarThreadOptions) {
    this.#options = options;
  }

  /** Goes up whenever the thread has forgotten all answers. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** Jobs that are not done. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** @throws {GrammarThreadError} */
  run(job: GrammarJob): Promise<Uint32Array<ArrayBuffer>> {
    if (this.#closed) return Promise.reject(new GrammarThreadError("closed", "the service is stopping"));
    if (this.#worker === undefined && this.#lost.isFull) {
      const message = `${this.#lost.size} grammars that took too long are still being compiled`;
      return Promise.reject(new GrammarThreadError("busy", message));
    }
    this.#worker ??= this.#start();
    const id = this.#nextId++;
    const inSlot = job.kind === "follow" && this.#postInSlot(id, job);
    if (!inSlot) this.#post({ kind: "job", id, job });
    const waiting: Waiting = { id, inSlot, ...Promise.withResolvers<Uint32Array<ArrayBuffer>>() };
    this.#waiting.push(waiting);
    if (this.#waiting.length === 1 && this.#isLoaded) this.#watch();
    return waiting.promise;
  }

  /** Frees what the thread knows of an answer. */
  forget(matcher: number): void {
    if (this.#worker !== undefined) this.#post({ kind: "forget", matcher });
  }

  /** Ends the thread; jobs not done fail. */
  close(): void {
    this.#closed = true;
    this.#lose("closed", "the service is stopping");
    this.#lost.close();
  }

  #post(message: ToGrammarWorker): void {
    this.#worker?.postMessage(message);
    this.#slots?.messagePosted();
  }

  /** Posts a job whose answer is known and that has one mask. @returns whether it did */
  #postInSlot(id: number, { matcher, spec, keep, tokens, from, words }: FollowJob): boolean {
    if (spec !== undefined || from !== keep + tokens.length) return false;
    if (this.#slots === undefined) {
      const slots = new MaskRequests(words);
      this.#post({ kind: "share", memory: slots.memory });
      this.#slots = slots;
      this.#takeFrom(slots);
    }
    if (!this.#slots.canPost({ tokens, words })) return false;
    this.#slots.post({ id, matcher, keep, tokens });
    return true;
  }

  /** Takes masks as they come, for as long as the thread has these slots. */
  async #takeFrom(slots: MaskRequests): Promise<void> {
    while (this.#slots === slots) {
      await slots.changed();
      if (this.#slots === slots) this.#takeMasks();
    }
  }

  /** Results come in the order of the jobs, whichever way they come. */
  #takeMasks(): void {
    while (this.#waiting[0]?.inSlot) {
      const mask = this.#slots?.take();
      if (mask === undefined) return;
      const done = this.#waiting.shift();
      this.#watch();
      done?.resolve(mask);
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL("./grammar_worker.ts", import.meta.url), { type: "module", name: "grammar" });
    worker.onmessage = (event: MessageEvent<FromGrammarWorker>) => this.#receive(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#lose("lost", event.message);
    };
    const { directory, markers, loadMs } = this.#options;
    this.#isLoaded = false;
    this.#timer = setTimeout(() => this.#lose("lost", `it did not load within ${loadMs} ms`), loadMs);
    worker.postMessage({ kind: "load", directory, markers } satisfies ToGrammarWorker);
    return worker;
  }

  #receive(message: FromGrammarWorker): void {
    if (message.kind === "loaded") {
      this.#isLoaded = true;
      return this.#watch();
    }
    if (message.kind === "free") return;
    if (message.kind === "failed" && message.id === undefined) return this.#lose("lost", message.message);
    const waiting = this.#waiting[0];
    if (waiting === undefined || waiting.id !== message.id) return;
    this.#waiting.shift();
    this.#watch();
    if (waiting.inSlot) this.#slots?.skip();
    if (message.kind === "done") waiting.resolve(message.masks);
    else waiting.reject(new GrammarThreadError(message.compile ? "compile" : "token", message.message));
    // The library has aborted: what it does from now on is undefined.
    if (message.kind === "failed" && message.compile) this.#lose("lost", "another grammar broke the thread");
    this.#takeMasks();
  }

  /** Only the oldest job is being computed. */
  #watch(): void {
    clearTimeout(this.#timer);
    const { jobMs } = this.#options;
    if (this.#waiting.length === 0) return;
    this.#timer = setTimeout(() => {
      this.#waiting.shift()?.reject(new GrammarThreadError("deadline", `it takes over ${jobMs} ms`));
      if (this.#worker !== undefined) this.#lost.add(this.#worker);
      this.#worker = undefined;
      this.#lose("lost", "another grammar took too long");
    }, jobMs);
  }

  #lose(failure: GrammarFailure, message: string): void {
    clearTimeout(this.#timer);
    this.#slots?.close();
    this.#slots = undefined;
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#isLoaded = false;
    this.#incarnation++;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(new GrammarThreadError(failure, message));
  }
}
