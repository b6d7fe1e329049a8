/**
 * Grammars for requests and for the scheduler. A specification is tried out in a thread of its own before running
 * answers depend on it: what breaks or hangs the library then breaks nothing else.
 * Owns both threads; knows nothing of HTTP.
 */

import { RequestError } from "../errors.ts";
import type { Constraint, ConstraintHost } from "../scheduling/constraint.ts";
import { grammarKey, type GrammarSpec } from "./grammar_spec.ts";
import { GrammarThread, GrammarThreadError } from "./grammar_thread.ts";

/** How grammars are served. */
export interface GrammarServiceOptions {
  /** Of the model: its tokenizer and the tokens that end an answer. */
  readonly directory: string;
  /** Special tokens that tool formats write as text. @default none */
  readonly markers?: readonly string[];
  /** Compiling a grammar may take so long. @default 5 s */
  readonly compileMs?: number;
  /** Following an answer may take so long, per step. @default 5 s */
  readonly followMs?: number;
  /** A specification that took too long is refused for so long without another try. @default 1 min */
  readonly retryMs?: number;
}

/** Loading the library and a vocabulary of 150,000 tokens takes less than a second. */
const LOAD_MS = 60_000;

/** Specifications that may wait to be tried out. */
const MAX_CHECKS = 64;

/** Of a mask for any vocabulary that exists: checks look only at whether it is empty. */
const CHECK_WORDS = 2 ** 15;

/** Verdicts that are remembered; the one used longest ago goes first. */
const MAX_VERDICTS = 256;

/** What the rest of the service asks. */
export interface GrammarChecker {
  /**
   * Tries a specification out; the verdict is remembered.
   * @param param the request field that it came from
   * @throws {RequestError} `invalid_request` with the library's reason; `queue_full`, `draining`
   */
  check(spec: GrammarSpec, param?: string): Promise<void>;
}

/** What became of a specification. */
interface Verdict {
  /** Why it cannot be compiled; undefined: it can be. */
  readonly reason: Promise<string | undefined>;
  /** From when on it is tried out again, by `performance.now`: what took too long may have had little of a busy machine. */
  staleAtMs: number;
}

/** Grammars of one model. */
export class GrammarService implements ConstraintHost, GrammarChecker {
  readonly #checks: GrammarThread;
  readonly #answers: GrammarThread;
  readonly #verdicts = new Map<string, Verdict>();
  readonly #retryMs: number;
  #nextMatcher = 0;

  constructor(options: GrammarServiceOptions) {
    const { directory, markers = [], compileMs = 5000, followMs = 5000, retryMs = 60_000 } = options;
    this.#retryMs = retryMs;
    const common = { directory, markers, loadMs: LOAD_MS };
    this.#checks = new GrammarThread({ ...common, jobMs: compileMs });
    this.#answers = new GrammarThread({ ...common, jobMs: followMs });
  }

  async check(spec: GrammarSpec, param?: string): Promise<void> {
    const key = grammarKey(spec);
    const known = this.#verdicts.get(key);
    const verdict = known !== undefined && performance.now() < known.staleAtMs ? known : this.#begin(spec, key);
    this.#verdicts.delete(key);
    this.#verdicts.set(key, verdict);
    for (const oldest of this.#verdicts.keys()) {
      if (this.#verdicts.size <= MAX_VERDICTS) break;
      this.#verdicts.delete(oldest);
    }
    const reason = await verdict.reason;
    if (reason === undefined) return;
    throw new RequestError(
      "invalid_request",
      `Cannot compile the grammar of the answer: ${reason}`,
      param === undefined ? {} : { param },
    );
  }

  follow(grammar: GrammarSpec): Constraint {
    return new FollowedAnswer(this.#answers, { matcher: this.#nextMatcher++, spec: grammar });
  }

  /** Ends both threads. */
  close(): void {
    this.#checks.close();
    this.#answers.close();
  }

  /** @throws {RequestError} `queue_full` */
  #begin(spec: GrammarSpec, key: string): Verdict {
    if (this.#checks.waiting >= MAX_CHECKS) {
      throw new RequestError("queue_full", `Cannot compile the grammar: ${MAX_CHECKS} others wait to be compiled`);
    }
    const verdict: Verdict = {
      staleAtMs: Infinity,
      reason: this.#tryOut(spec, () => verdict.staleAtMs = this.#retryAtMs),
    };
    // A check that did not finish gives no verdict.
    verdict.reason.catch(() => this.#verdicts.get(key) === verdict && this.#verdicts.delete(key));
    return verdict;
  }

  get #retryAtMs(): number {
    return performance.now() + this.#retryMs;
  }

  async #tryOut(spec: GrammarSpec, onLate: () => void): Promise<string | undefined> {
    try {
      await retried(() => this.#checks.run({ kind: "check", spec, words: CHECK_WORDS }));
      return undefined;
    } catch (error) {
      if (!(error instanceof GrammarThreadError)) throw error;
      if (error.failure === "deadline") onLate();
      else if (error.failure !== "compile") throw unavailable(error);
      return error.message;
    }
  }
}

/** Follows one answer; sends the thread only what it does not know yet. */
class FollowedAnswer implements Constraint {
  readonly #thread: GrammarThread;
  readonly #answer: { readonly matcher: number; readonly spec: GrammarSpec };
  #incarnation: number | undefined;
  /** What the thread has received. */
  #sent: Uint32Array = new Uint32Array(0);

  constructor(thread: GrammarThread, answer: { readonly matcher: number; readonly spec: GrammarSpec }) {
    this.#thread = thread;
    this.#answer = answer;
  }

  async masks(tokens: Uint32Array, from: number, words: number): Promise<Uint32Array> {
    try {
      return await retried(() => this.#follow(tokens, from, words));
    } catch (error) {
      this.#incarnation = undefined;
      if (!(error instanceof GrammarThreadError)) throw error;
      throw unavailable(error);
    }
  }

  close(): void {
    this.#incarnation = undefined;
    this.#thread.forget(this.#answer.matcher);
  }

  #follow(tokens: Uint32Array, from: number, words: number): Promise<Uint32Array> {
    const { incarnation } = this.#thread;
    const isKnown = this.#incarnation === incarnation;
    const keep = isKnown ? Math.min(commonPrefix(this.#sent, tokens), from) : 0;
    this.#incarnation = incarnation;
    this.#sent = tokens;
    const { matcher, spec } = this.#answer;
    const news = { spec: isKnown ? undefined : spec, keep, tokens: tokens.slice(keep) };
    return this.#thread.run({ kind: "follow", matcher, ...news, from, words });
  }
}

/** Tries once more when another answer made the thread fail. */
async function retried<Result>(run: () => Promise<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof GrammarThreadError && error.failure === "lost") return await run();
    throw error;
  }
}

function unavailable(error: GrammarThreadError): RequestError {
  const { failure, message } = error;
  if (failure === "closed") return new RequestError("draining", `Cannot follow the grammar: ${message}`);
  if (failure === "busy") return new RequestError("queue_full", `Cannot compile the grammar: ${message}`);
  return new RequestError("deadline_exceeded", `Cannot follow the grammar of the answer: ${message}`, { cause: error });
}

function commonPrefix(a: Uint32Array, b: Uint32Array): number {
  const end = Math.min(a.length, b.length);
  let i = 0;
  while (i < end && a[i] === b[i]) i++;
  return i;
}
