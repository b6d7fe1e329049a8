/**
 * What a worker does for the one router it serves: load a model, take its place in a group, run steps in
 * order, answer pings between them, and end. Knows messages and the engine's interface; knows nothing of sockets, secrets or processes.
 */

import { CodedError, messageOf } from "../kernels/errors.ts";
import { MAX_STEPS_IN_FLIGHT, type Step, type StepResult } from "../engine/span.ts";
import type { EngineInfo } from "../engine/engine_info.ts";
import type { HostedEngine, LoadRequest, OpenEngine } from "./engine_host.ts";
import { LinkError, PeerError, ProtocolError } from "./errors.ts";
import type { Link } from "./link.ts";
import { type RouterMessage, UNKNOWN_FAILURE, type WorkerMessage } from "./protocol.ts";
import { MaskMailbox } from "./mask_mailbox.ts";
import { GroupMembership, type MembershipOptions } from "./group_membership.ts";

/** What a session needs besides its link. */
export interface SessionOptions {
  readonly open: OpenEngine;
  /** Where peers come in, and what they must know. */
  readonly acceptor: MembershipOptions["acceptor"];
  readonly secret: string | undefined;
  readonly trust: MembershipOptions["trust"];
  readonly identity: MembershipOptions["identity"];
  /** A router that says nothing for this long is gone, unless the worker is busy. */
  readonly silenceMs: number;
  /** Called after each step that was run, for telemetry. */
  readonly onStep: (traceparents: readonly string[], step: Step, result: StepResult) => void;
  /** Called when a model is loaded. */
  readonly onLoaded: (info: EngineInfo) => void;
  /** Lines for the operator; they never hold tokens or text. */
  readonly log: (line: string) => void;
}

/** How a session ended: the router left, or the worker is unusable. */
export type SessionEnd = "over" | "failed";

/** A message that is answered when those before it are. */
type Task = Exclude<RouterMessage, { readonly kind: "selection" | "masks" }>;

/** Progress is reported at most this often; the last report is always made. */
const PROGRESS_EVERY_MS = 100;
/** How often a worker reports while a model is loaded and warmed up, progress or not. */
const PULSE_EVERY_MS = 1000;
const FLUSH_MS = 1000;
const FREE_MS = 2000;
/** The router waits for answers; only pings and a forming may come before them. */
const MAX_TASKS = 256;

/** Serves one router over a link that it closes at the end. */
export class WorkerSession {
  readonly #link: Link<WorkerMessage, RouterMessage>;
  readonly #options: SessionOptions;
  readonly #membership: GroupMembership;
  readonly #masks = new MaskMailbox();
  readonly #end = Promise.withResolvers<"drained">();
  readonly #left = Promise.withResolvers<void>();
  #hosted: HostedEngine | undefined;
  #tasks = 0;
  #working: Promise<void> = Promise.resolve();
  /** Steps that run while the next message is looked at, in order. */
  readonly #steps: Promise<void>[] = [];
  /** When the last task or step was over, by `performance.now()`. */
  #idleSince = -Infinity;

  constructor(link: Link<WorkerMessage, RouterMessage>, options: SessionOptions) {
    this.#link = link;
    this.#options = options;
    this.#membership = new GroupMembership({ ...options, tell: (message) => this.#tell(message) });
  }

  /**
   * Serves until the router drains the worker, leaves, or falls silent, or until something fails for good. Then frees
   * the engine. A load or step that does not end soon is left alone: it ends with the process.
   */
  async serve(): Promise<SessionEnd> {
    try {
      this.#link.send({ kind: "hello", pid: Deno.pid });
      await Promise.race([this.#listen(), this.#end.promise]);
      await this.#link.flush(FLUSH_MS);
      return "over";
    } catch (error) {
      return await this.#giveUp(error);
    } finally {
      this.#left.resolve();
      this.#masks.close();
      await this.#membership.close();
      await this.#freeEngine();
      await this.#link.close();
    }
  }

  /** Asks the router to release the worker, which goes on until the router drains it, at most for so long. */
  leave(deadlineMs: number): void {
    this.#tell({ kind: "leaving" });
    const late = () => {
      this.#options.log(`The router did not let the worker go within ${deadlineMs} ms`);
      this.#end.resolve("drained");
    };
    const timer = setTimeout(late, deadlineMs);
    this.#left.promise.then(() => clearTimeout(timer));
  }

  /** A GPU that hangs must not keep the process from ending. */
  async #freeEngine(): Promise<void> {
    const late = Promise.withResolvers<"late">();
    const timer = setTimeout(() => late.resolve("late"), FREE_MS);
    try {
      const end = await Promise.race([this.#hosted?.engine.close(), late.promise]);
      if (end === "late") this.#options.log(`Cannot free the engine: it is busy for more than ${FREE_MS} ms`);
    } catch (error) {
      this.#options.log(`Cannot free the engine: ${describe(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Receives everything at once: what a running step waits for, and what ends it, must not wait behind the step. */
  async #listen(): Promise<never> {
    const { silenceMs } = this.#options;
    for (let waitMs = silenceMs;;) {
      try {
        const message = await this.#link.receive(waitMs);
        waitMs = silenceMs;
        if (message.kind === "selection") this.#membership.hear(message);
        else if (message.kind === "masks") this.#masks.put(message.step, message.masks);
        else this.#enqueue(message);
      } catch (error) {
        if (!(error instanceof LinkError && error.code === "link_timeout")) throw error;
        waitMs = this.#silenceLeft();
      }
    }
  }

  /**
   * How long the router may still be silent. It sends nothing to a worker that is busy, so its silence begins when that is over.
   * @throws {LinkError} `link_timeout` when it has been silent for too long
   */
  #silenceLeft(): number {
    const { silenceMs } = this.#options;
    if (this.#tasks + this.#steps.length > 0) return silenceMs;
    const leftMs = Math.ceil(this.#idleSince + silenceMs - performance.now());
    if (leftMs > 0) return leftMs;
    throw new LinkError("link_timeout", `Cannot receive: nothing came within ${silenceMs} ms`);
  }

  #taskOver(): void {
    this.#tasks--;
    this.#idleSince = performance.now();
  }

  #stepOver(step: Promise<void>): void {
    this.#steps.splice(this.#steps.indexOf(step), 1);
    this.#idleSince = performance.now();
  }

  #enqueue(task: Task): void {
    if (++this.#tasks > MAX_TASKS) throw new ProtocolError(`Cannot receive: ${MAX_TASKS} messages wait for answers`);
    if (task.kind === "step") this.#masks.expect(task.step);
    if (task.kind === "form") {
      this.#membership.leave(task.epoch);
      this.#masks.close();
    }
    this.#working = this.#working
      .then(() => this.#answer(task))
      .then(() => this.#taskOver())
      .catch((error) => this.#end.reject(error));
  }

  async #answer(task: Task): Promise<void> {
    const most = task.kind === "step" ? MAX_STEPS_IN_FLIGHT - 1 : 0;
    while (this.#steps.length > most) await this.#steps[0];
    switch (task.kind) {
      case "ping":
        return this.#link.send({ kind: "pong", id: task.id });
      case "load":
        return await this.#load(task.load);
      case "form":
        if (this.#hosted === undefined) throw new CodedError("invalid_load", "Cannot form group: no model is loaded");
        return await this.#membership.take(task, this.#hosted);
      case "step":
        return await this.#begin(task.step, task.traceparents);
      case "drain":
        return this.#end.resolve("drained");
    }
  }

  async #load(load: LoadRequest): Promise<void> {
    if (this.#hosted !== undefined) throw new CodedError("invalid_load", "Cannot load model: one is loaded already");
    let [reportedAt, progress] = [-Infinity, { doneBytes: 0, totalBytes: 0 }];
    const report = () => this.#tell({ kind: "loading", ...progress });
    // Opening files and warming up have no bytes to count, but a worker that hangs must differ from one that works.
    const pulse = setInterval(report, PULSE_EVERY_MS);
    try {
      this.#hosted = await this.#options.open(load, (doneBytes, totalBytes) => {
        const now = performance.now();
        progress = { doneBytes, totalBytes };
        if (doneBytes < totalBytes && now - reportedAt < PROGRESS_EVERY_MS) return;
        reportedAt = now;
        report();
      });
    } finally {
      clearInterval(pulse);
    }
    const { info } = this.#hosted.engine;
    this.#link.send({ kind: "loaded", info });
    this.#options.onLoaded(info);
  }

  /** Runs a step; one that is followed runs on while the next one is looked at. */
  async #begin(step: Step, traceparents: readonly string[]): Promise<void> {
    const running = this.#step(step, traceparents).finally(() => this.#stepOver(running));
    this.#steps.push(running);
    if (!step.followed) return await running;
    running.catch((error) => this.#end.reject(error));
  }

  async #step(step: Step, traceparents: readonly string[]): Promise<void> {
    try {
      if (this.#hosted === undefined) {
        throw new CodedError("invalid_step", `Cannot run step ${step.index}: no model is loaded`);
      }
      this.#membership.begin(step.index, step.deadlineMs);
      const run = await this.#hosted.engine.run(step, this.#masks.begin(step));
      const exchange = this.#membership.end(step.index);
      const result = exchange === undefined ? run : { ...run, timing: { ...run.timing, exchange } };
      this.#link.send({ kind: "result", result });
      this.#options.onStep(traceparents, step, result);
    } catch (error) {
      this.#membership.end(step.index);
      if (error instanceof PeerError) return this.#membership.sever(error);
      if (!isRefusal(error)) throw error;
      this.#link.send({ kind: "refused", index: step.index, code: error.code, message: error.message });
    } finally {
      this.#masks.end(step);
    }
  }

  /** Sends a message that answers nothing; when the router is gone, the session ends. */
  #tell(message: WorkerMessage): void {
    try {
      this.#link.send(message);
    } catch (error) {
      this.#end.reject(error);
    }
  }

  /** Reports why to the router, if the link is still open. */
  async #giveUp(error: unknown): Promise<SessionEnd> {
    const message = messageOf(error);
    const routerLeft = error instanceof LinkError && error.code === "link_closed";
    this.#options.log(`The session is over: ${describe(error)}`);
    if (routerLeft) return "over";
    try {
      const code = error instanceof CodedError ? error.code : UNKNOWN_FAILURE;
      this.#link.send({ kind: "failed", code, message });
      await this.#link.flush(FLUSH_MS);
    } catch (cause) {
      this.#options.log(`Cannot report the failure: ${describe(cause)}`);
    }
    return "failed";
  }
}

/** Whether the engine is as it was before the step; a lost device and an error without a code leave it in an unknown state. */
function isRefusal(error: unknown): error is CodedError {
  const isOfTheWire = error instanceof LinkError || error instanceof ProtocolError;
  return error instanceof CodedError && error.code !== "device_lost" && !isOfTheWire;
}

/** An error with the errors that caused it, on one line; those of our own families need no stack. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error instanceof CodedError ? `${error.message} (${error.code})` : error.stack ?? error.message;
  return error.cause === undefined ? text : `${text}; because: ${describe(error.cause)}`;
}
