/**
 * One worker as the router sees it: a connection on which it loads a model, takes its place in a group and runs steps,
 * and judges whether an idle one is still alive. Knows messages; knows nothing of other workers,
 * processes or restarts.
 */

import type { EngineInfo } from "../../engine/engine_info.ts";
import type { Step } from "../../engine/span.ts";
import { CodedError } from "../../kernels/errors.ts";
import type { LoadRequest } from "../../workers/engine_host.ts";
import { LinkError } from "../../workers/errors.ts";
import { Link } from "../../workers/link.ts";
import { type Form, parseWorkerMessage, type RouterMessage, type WorkerMessage } from "../../workers/protocol.ts";
import { Deadline } from "./deadline.ts";
import { RequestError } from "../errors.ts";
import { connectionLost, unexpected } from "./worker_loss.ts";
import { type StepAnswer, StepRequests } from "./step_requests.ts";
import { dialWorker, type WorkerPlace } from "./worker_place.ts";
import type { WorkerConn } from "../../workers/transport.ts";

/** How patient the router is with a worker. */
export interface Patience {
  /** Between two pings to an idle worker. */
  readonly pingEveryMs: number;
  /** This many pings without an answer, and an idle worker is lost. */
  readonly unansweredPings: number;
  /** Without any sign of progress while a model is loaded. */
  readonly loadStallMs: number;
  /** For the workers of a group to find each other; one that does not even report a failure in twice the time is lost. */
  readonly formMs: number;
}

/** What a service uses: an idle worker is lost after 5 s of silence. */
export const PATIENCE: Patience = { pingEveryMs: 1000, unansweredPings: 5, loadStallMs: 30_000, formMs: 5000 };

/** The worker itself said that it gives up; the code is its own, e.g. `invalid_model`. */
export class WorkerFailure extends CodedError {}

/** Anything a request waits for; the other messages are no answers. */
type Answer = Extract<WorkerMessage, { kind: "loaded" | "formed" | "severed" }>;

/** What a worker sends without being asked while it is in a group. */
export type Notice = Extract<WorkerMessage, { kind: "candidates" | "stalled" | "severed" }>;

const CLOSED = new RequestError("worker_lost", "Cannot use worker: the router hung up");

interface Request {
  readonly kind: RouterMessage["kind"];
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
  readonly #leaving = Promise.withResolvers<void>();
  /** Resolves when the worker wants to stop, and only waits to be drained. */
  readonly leaving: Promise<void> = this.#leaving.promise;
  readonly #reading: Promise<void>;
  readonly #pinging: ReturnType<typeof setInterval>;
  #request: Request | undefined;
  readonly #steps = new StepRequests();
  /** Undefined in no group: what it sends about its former one is dropped. */
  #epoch: number | undefined;
  #onNotice: (notice: Notice) => void = () => {};
  #unanswered = 0;
  #pings = 0;
  #lost: CodedError | undefined;

  private constructor(conn: WorkerConn, patience: Patience) {
    this.#patience = patience;
    this.#link = new Link(conn, { parse: parseWorkerMessage });
    this.#reading = this.#read();
    this.#pinging = setInterval(() => this.#ping(), patience.pingEveryMs);
  }

  /**
   * Connects and shakes hands.
   * @throws {CodedError} `worker_lost` when nothing listens; what the handshake throws
   */
  static async connect(place: WorkerPlace, patience: Patience = PATIENCE): Promise<WorkerClient> {
    return new WorkerClient(await dialWorker(place), patience);
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
  async load(load: LoadRequest, onProgress: Request["onProgress"] = () => {}): Promise<EngineInfo> {
    const deadlineMs = this.#patience.loadStallMs;
    const lateMessage = `Cannot load model: the worker made no progress within ${deadlineMs} ms`;
    const answer = await this.#ask({ kind: "load", load }, { deadlineMs, lateMessage, onProgress });
    if (answer.kind === "loaded") return answer.info;
    throw this.#lose(unexpected(answer.kind));
  }

  /**
   * Gives the worker its place in a group; it forgets all sequences.
   * @param onNotice gets what the worker sends without being asked, until `leave`
   * @throws {CodedError} the worker is well, but lacks its peers; anything else when it is lost
   */
  async form(form: Omit<Form, "deadlineMs">, onNotice: (notice: Notice) => void): Promise<void> {
    const { formMs } = this.#patience;
    this.#epoch = form.epoch;
    this.#onNotice = onNotice;
    const answer = await this.#ask({ kind: "form", ...form, deadlineMs: formMs }, {
      deadlineMs: 2 * formMs,
      lateMessage: `Cannot form group: the worker did not answer within ${2 * formMs} ms`,
    });
    if (answer.kind === "severed") throw new CodedError(answer.code, answer.message);
    if (answer.kind !== "formed") throw this.#lose(unexpected(answer.kind));
  }

  /** Takes the worker out of its group; a request that is under way fails with the reason, and is not answered. */
  leave(reason: CodedError): void {
    this.#epoch = undefined;
    this.#unanswered = 0;
    this.#settle()?.reject(reason);
    this.#steps.fail(reason);
  }

  /**
   * Runs one step; how long it may take is for others to judge.
   * @throws {CodedError} when the worker is lost or leaves its group
   */
  async step(step: Step, traceparents: readonly string[]): Promise<StepAnswer> {
    this.#send({ kind: "step", step, traceparents });
    return await this.#steps.add(step.index);
  }

  /** Sends the worker what a step that runs waits for. */
  supply(message: Extract<RouterMessage, { kind: "selection" | "masks" }>): void {
    this.#tell(message);
  }

  /** Gives the worker up. */
  giveUp(reason: CodedError): void {
    this.#lose(reason);
  }

  /** The reason, once the worker is lost. */
  get loss(): CodedError | undefined {
    return this.#lost;
  }

  /** Asks the worker to finish and exit, and waits until it has hung up or `deadlineMs` have passed. */
  async drain(deadlineMs: number): Promise<void> {
    this.#tell({ kind: "drain" });
    const deadline = new Deadline(deadlineMs, () => this.#lose(CLOSED));
    await this.lost;
    deadline.clear();
  }

  /** Hangs up; whatever still waits fails with `worker_lost`. */
  async close(): Promise<void> {
    this.#lose(CLOSED);
    await this.#link.close();
    await this.#reading;
  }

  #ask(
    message: RouterMessage,
    { deadlineMs, lateMessage, onProgress = () => {} }: {
      readonly deadlineMs: number;
      readonly lateMessage: string;
      readonly onProgress?: Request["onProgress"];
    },
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (!this.#steps.isEmpty) throw new Error(`Cannot send ${message.kind}: the worker runs a step`);
      this.#send(message);
      const late = () => this.#lose(new RequestError("deadline_exceeded", lateMessage));
      this.#request = { kind: message.kind, resolve, reject, deadline: new Deadline(deadlineMs, late), onProgress };
    });
  }

  /** Sends what will be answered. */
  #send(message: RouterMessage): void {
    if (this.#lost !== undefined) throw this.#lost;
    if (this.#request !== undefined) throw new Error(`Cannot send ${message.kind}: the worker is busy`);
    try {
      this.#link.send(message);
    } catch (cause) {
      // The link is over, which this side has not read yet; a message that fits into no frame leaves it as it is.
      throw cause instanceof LinkError ? this.#lose(connectionLost(cause)) : cause;
    }
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
      case "leaving":
        return this.#leaving.resolve();
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
      case "loaded":
        return this.#take(message);
      default:
        this.#hearOfGroup(message);
    }
  }

  /** Messages of a former epoch may still be on their way; those of the worker's next one begin with `formed`. */
  #hearOfGroup(message: Exclude<Answer | Notice, { kind: "loaded" }> | StepAnswer): void {
    const isForming = this.#request?.kind === "form";
    switch (message.kind) {
      case "result":
      case "refused":
        if (this.#epoch === undefined || isForming) return;
        this.#unanswered = 0;
        if (!this.#steps.answer(message)) this.#lose(unexpected(message.kind));
        return;
      case "formed":
        if (message.epoch === this.#epoch) this.#take(message);
        return;
      case "severed":
        if (message.epoch !== this.#epoch) return;
        return isForming ? this.#take(message) : this.#onNotice(message);
      default:
        if (message.epoch === this.#epoch) this.#onNotice(message);
    }
  }

  #take(answer: Answer): void {
    this.#unanswered = 0;
    const request = this.#settle();
    if (request === undefined) this.#lose(unexpected(answer.kind));
    else request.resolve(answer);
  }

  /** Ends the request that is under way, and hands it out. */
  #settle(): Request | undefined {
    const request = this.#request;
    request?.deadline.clear();
    this.#request = undefined;
    return request;
  }

  /** Pings only an idle worker: work on the GPU blocks a busy one's thread, and the step's deadline judges that one. */
  #ping(): void {
    if (this.#request !== undefined || !this.#steps.isEmpty || this.#lost !== undefined) return;
    const { unansweredPings, pingEveryMs } = this.#patience;
    if (this.#unanswered >= unansweredPings) {
      const silentMs = unansweredPings * pingEveryMs;
      this.#lose(new RequestError("worker_lost", `Cannot reach worker: it was idle and silent for ${silentMs} ms`));
      return;
    }
    this.#unanswered++;
    this.#tell({ kind: "ping", id: this.#pings++ });
  }

  /** Sends what needs no answer. */
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
    this.#settle()?.reject(reason);
    this.#steps.fail(reason);
    this.#loss.resolve(reason);
    return reason;
  }
}
