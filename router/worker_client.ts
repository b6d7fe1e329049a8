/**
 * One worker as the router sees it: a connection on which it loads a model and runs steps, one request at a time, and
 * the judgement whether the worker still lives. Knows messages and deadlines; knows nothing of processes or restarts.
 */

import type { EngineFacts } from "../engine/facts.ts";
import type { Step, StepResult } from "../engine/span.ts";
import { CodedError } from "../kernels/errors.ts";
import type { LoadRequest } from "../workers/engine_host.ts";
import { introduce } from "../workers/handshake.ts";
import { Link } from "../workers/link.ts";
import { parseWorkerMessage, type RouterMessage, type WorkerMessage } from "../workers/protocol.ts";
import { RequestError } from "./errors.ts";

/** How patient the router is with a worker. */
export interface Patience {
  /** Between two pings to an idle worker. */
  readonly pingEveryMs: number;
  /** This many pings without an answer, and an idle worker is lost. */
  readonly unansweredPings: number;
  /** Without any sign of progress while a model is loaded. */
  readonly loadStallMs: number;
}

/** What a service uses: an idle worker is lost after 5 s of silence. */
export const PATIENCE: Patience = { pingEveryMs: 1000, unansweredPings: 5, loadStallMs: 120_000 };

const CONNECT_MS = 5000;

/** Where a worker is, and who it is to be. */
export interface WorkerPlace {
  readonly hostname: string;
  readonly port: number;
  readonly secret: string | undefined;
  readonly epoch: number;
  readonly workerIndex: number;
}

/** The worker itself said that it gives up; the code is its own, e.g. `invalid_model`. */
export class WorkerFailure extends CodedError {}

/** Anything a request waits for; `loading` and `pong` are no answers. */
type Answer = Extract<WorkerMessage, { kind: "loaded" | "result" | "refused" }>;

interface Request {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: CodedError) => void;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly deadline: Deadline;
}

/** A connected worker. It is lost at most once; whatever waits for it then fails with the reason. */
export class WorkerClient {
  readonly #link: Link<RouterMessage, WorkerMessage>;
  readonly #patience: Patience;
  readonly #loss = Promise.withResolvers<CodedError>();
  readonly #reading: Promise<void>;
  readonly #pinging: ReturnType<typeof setInterval>;
  #request: Request | undefined;
  #unanswered = 0;
  #pings = 0;
  #lost: CodedError | undefined;

  private constructor(conn: Deno.TcpConn, patience: Patience) {
    this.#patience = patience;
    this.#link = new Link(conn, { parse: parseWorkerMessage });
    this.#reading = this.#read();
    this.#pinging = setInterval(() => this.#ping(), patience.pingEveryMs);
  }

  /**
   * Connects and shakes hands.
   * @throws {CodedError} `worker_lost` when nobody listens; what the handshake throws
   */
  static async connect(place: WorkerPlace, patience: Patience = PATIENCE): Promise<WorkerClient> {
    const { hostname, port, secret, epoch, workerIndex } = place;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), CONNECT_MS);
    let conn: Deno.TcpConn;
    try {
      conn = await Deno.connect({ hostname, port, signal: late.signal });
    } catch (cause) {
      throw new RequestError("worker_lost", `Cannot reach worker at ${hostname}:${port}`, { cause });
    } finally {
      clearTimeout(timer);
    }
    await introduce(conn, { role: "router", epoch, workerIndex }, { secret });
    return new WorkerClient(conn, patience);
  }

  /** Resolves with the reason when the worker is lost; never rejects. */
  get lost(): Promise<CodedError> {
    return this.#loss.promise;
  }

  /**
   * Loads a model.
   * @throws {WorkerFailure} the worker's own reason
   * @throws {RequestError} `worker_lost` or `deadline_exceeded`
   */
  async load(load: LoadRequest, onProgress: Request["onProgress"] = () => {}): Promise<EngineFacts> {
    const deadlineMs = this.#patience.loadStallMs;
    const answer = await this.#ask({ kind: "load", load }, {
      deadlineMs,
      lateMessage: `Cannot load model: the worker made no progress within ${deadlineMs} ms`,
      onProgress,
    });
    if (answer.kind === "loaded") return answer.facts;
    throw this.#lose(unexpected(answer.kind));
  }

  /**
   * Runs one step.
   * @throws {RequestError} `worker_lost` or `deadline_exceeded`: the worker is lost
   * @throws {CodedError} any other code: the step was refused and changed nothing
   */
  async step(step: Step, traceparents: readonly string[]): Promise<StepResult> {
    const answer = await this.#ask({ kind: "step", step, traceparents }, {
      deadlineMs: step.deadlineMs,
      lateMessage: `Cannot finish step ${step.index}: the worker did not answer within ${step.deadlineMs} ms`,
      onProgress: () => {},
    });
    if (answer.kind === "refused") throw new CodedError(answer.code, answer.message);
    if (answer.kind === "result" && answer.result.index === step.index) return answer.result;
    throw this.#lose(unexpected(answer.kind));
  }

  /** The reason, once the worker is lost. */
  get loss(): CodedError | undefined {
    return this.#lost;
  }

  /** Asks the worker to finish and exit, and waits until it has hung up or `deadlineMs` have passed. */
  async drain(deadlineMs: number): Promise<void> {
    this.#tell({ kind: "drain" });
    const deadline = new Deadline(deadlineMs, () => this.#lose(closedError()));
    await this.lost;
    deadline.clear();
  }

  /** Hangs up; whatever still waits fails with `worker_lost`. */
  async close(): Promise<void> {
    this.#lose(closedError());
    await this.#link.close();
    await this.#reading;
  }

  #ask(
    message: RouterMessage,
    options: { deadlineMs: number; lateMessage: string; onProgress: Request["onProgress"] },
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) throw this.#lost;
      if (this.#request !== undefined) throw new Error(`Cannot send ${message.kind}: the worker is busy`);
      this.#link.send(message);
      const deadline = new Deadline(
        options.deadlineMs,
        () => this.#lose(new RequestError("deadline_exceeded", options.lateMessage)),
      );
      this.#request = { resolve, reject, deadline, onProgress: options.onProgress };
    });
  }

  async #read(): Promise<void> {
    try {
      for await (const message of this.#link) this.#hear(message);
    } catch (cause) {
      this.#lose(connectionLost(cause));
    }
  }

  #hear(message: WorkerMessage): void {
    switch (message.kind) {
      case "hello":
        return;
      case "pong":
        this.#unanswered = 0;
        return;
      case "loading":
        this.#request?.deadline.restart();
        this.#request?.onProgress(message.doneBytes, message.totalBytes);
        return;
      case "failed":
        this.#lose(new WorkerFailure(message.code, message.message));
        return;
      default:
        this.#take(message);
    }
  }

  #take(answer: Answer): void {
    const request = this.#request;
    if (request === undefined) {
      this.#lose(unexpected(answer.kind));
      return;
    }
    this.#request = undefined;
    this.#unanswered = 0;
    request.deadline.clear();
    request.resolve(answer);
  }

  /** Pings only an idle worker: work on the GPU blocks a busy one's thread, and the step's deadline judges that one. */
  #ping(): void {
    if (this.#request !== undefined || this.#lost !== undefined) return;
    const { unansweredPings, pingEveryMs } = this.#patience;
    if (this.#unanswered >= unansweredPings) {
      const silentMs = unansweredPings * pingEveryMs;
      this.#lose(new RequestError("worker_lost", `Cannot reach worker: it was idle and silent for ${silentMs} ms`));
      return;
    }
    this.#unanswered++;
    this.#tell({ kind: "ping", id: this.#pings++ });
  }

  /** Sends what nobody waits for. */
  #tell(message: RouterMessage): void {
    if (this.#lost !== undefined) return;
    try {
      this.#link.send(message);
    } catch (cause) {
      this.#lose(connectionLost(cause));
    }
  }

  /** The first reason counts; returns it, to be thrown. */
  #lose(reason: CodedError): CodedError {
    if (this.#lost !== undefined) return this.#lost;
    this.#lost = reason;
    clearInterval(this.#pinging);
    this.#request?.deadline.clear();
    this.#request?.reject(reason);
    this.#request = undefined;
    this.#loss.resolve(reason);
    return reason;
  }
}

/** A timer that can be set back. */
class Deadline {
  readonly #ms: number;
  readonly #onLate: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(ms: number, onLate: () => void) {
    this.#ms = ms;
    this.#onLate = onLate;
    this.#timer = setTimeout(onLate, ms);
  }

  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onLate, this.#ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}

function connectionLost(cause: unknown): RequestError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new RequestError("worker_lost", `Cannot reach worker: its connection ended: ${reason}`, { cause });
}

function closedError(): RequestError {
  return new RequestError("worker_lost", "Cannot use worker: the router hung up");
}

function unexpected(kind: string): RequestError {
  return new RequestError("worker_lost", `Cannot use worker: it sent ${kind}, which nobody asked for`);
}
