/**
 * A group of one worker process: keeps it running, loads the model into it, and runs steps on it. What the scheduler
 * sees is the state: loading, ready under an epoch, broken for good, or closed.
 * Knows processes, connections and epochs; knows nothing of requests.
 */

import { EngineError } from "../engine/errors.ts";
import type { Step, StepResult } from "../engine/span.ts";
import type { CodedError } from "../kernels/errors.ts";
import type { LoadRequest } from "../workers/engine_host.ts";
import { UNKNOWN_FAILURE } from "../workers/protocol.ts";
import { RequestError } from "./errors.ts";
import type { Group, GroupState } from "./group.ts";
import type { WorkerProcess } from "./launcher.ts";
import { type RestartNumbers, RestartPolicy } from "./restart_policy.ts";
import { type Patience, WorkerClient, WorkerFailure } from "./worker_client.ts";

/** What a group is made of. */
export interface WorkerGroupOptions {
  /** Starts a worker process; `Launcher.launch` does. */
  readonly launch: (signal: AbortSignal) => Promise<WorkerProcess>;
  readonly load: LoadRequest;
  /** Name under which clients ask for the model. */
  readonly modelId: string;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** @default PATIENCE */
  readonly patience?: Patience;
  /** @default RESTART_NUMBERS */
  readonly restarts?: RestartNumbers;
  /** How long a step that is running at `close` may take. @default 5000 */
  readonly drainMs?: number;
}

const DRAIN_MS = 5000;

/** How long a worker that was hung up on may take to free its GPU when the group closes. */
const EXIT_MS = 3000;

/** How long a worker whose connection ended may take to exit; one that hangs is killed after that. */
const LAST_WORDS_MS = 500;

/** Failures of a worker after which another try may well succeed; any other code of its own is final while loading. */
const PASSING_FAILURES: readonly string[] = [
  "device_lost",
  UNKNOWN_FAILURE,
  "protocol",
  "link_timeout",
  "link_overflow",
];

/** Why a worker did not go on, and whether another try would end the same. */
interface Failure {
  readonly reason: string;
  readonly isFinal: boolean;
}

/** The workers of a group, started with it and supervised until `close`. */
export class WorkerGroup implements Group {
  readonly #options: WorkerGroupOptions;
  readonly #restarts: RestartPolicy;
  readonly #listeners = new Set<(state: GroupState) => void>();
  readonly #closing = new AbortController();
  readonly #supervision: Promise<void>;
  #state: GroupState = { kind: "loading", progress: 0 };
  #client: WorkerClient | undefined;
  #epoch = 1;
  #running: number | undefined;

  /** Starts the worker at once; `onState` tells how it goes. */
  constructor(options: WorkerGroupOptions) {
    this.#options = options;
    this.#restarts = new RestartPolicy(options.restarts);
    this.#supervision = this.#supervise();
  }

  get state(): GroupState {
    return this.#state;
  }

  /** See `Group`; a listener is not called with the present state. */
  onState(listener: (state: GroupState) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * See `Group`; `step.deadlineMs` counts from the call.
   * @throws {CodedError} `group_unavailable` when the group is not ready, beside what `Group` names
   */
  async run(step: Step, traceparents: readonly string[]): Promise<StepResult> {
    const client = this.#client;
    if (this.#state.kind !== "ready" || client === undefined) {
      throw new RequestError("group_unavailable", `Cannot run step ${step.index}: the group is ${this.#state.kind}`);
    }
    if (this.#running !== undefined) {
      throw new EngineError("invalid_step", `Cannot run step ${step.index}: step ${this.#running} is still running`);
    }
    this.#running = step.index;
    try {
      return await client.step(step, traceparents);
    } catch (error) {
      if (client.loss === undefined) throw error;
      const loss = this.#leave(client, client.loss);
      if (loss instanceof RequestError) throw loss;
      // The worker's own code would read as a refusal, but its state is gone.
      throw new RequestError("worker_lost", `Cannot finish step ${step.index}: ${loss.message}`, { cause: loss });
    } finally {
      this.#running = undefined;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#enter({ kind: "closed" });
    this.#listeners.clear();
    await this.#supervision;
  }

  async #supervise(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      const { reason, isFinal } = await this.#serveOnce();
      if (this.#closing.signal.aborted) return;
      this.#options.log(`The worker is lost: ${reason}`);
      const delayMs = isFinal ? undefined : this.#restarts.failed(performance.now());
      if (delayMs === undefined) return this.#enter({ kind: "broken", reason });
      await pause(delayMs, this.#closing.signal);
    }
  }

  /** The life of one worker process, from its start to its end. */
  async #serveOnce(): Promise<Failure> {
    let worker: WorkerProcess | undefined;
    let client: WorkerClient | undefined;
    try {
      worker = await this.#options.launch(this.#closing.signal);
      const place = { ...worker.address, secret: worker.secret, epoch: this.#epoch, workerIndex: 0 };
      client = await WorkerClient.connect(place, this.#options.patience);
      const loss = await this.#serveWith(client);
      return await this.#end(worker, client, { reason: loss.message, isFinal: false });
    } catch (error) {
      const isFinal = error instanceof WorkerFailure && !PASSING_FAILURES.includes(error.code);
      const reason = error instanceof Error ? error.message : String(error);
      return await this.#end(worker, client, { reason, isFinal });
    }
  }

  /** Loads the model and is ready until the worker is lost or the group closes; throws when loading fails. */
  async #serveWith(client: WorkerClient): Promise<CodedError> {
    const closed = aborted(this.#closing.signal);
    const loading = client.load(this.#options.load, (doneBytes, totalBytes) => {
      this.#enter({ kind: "loading", progress: totalBytes === 0 ? 0 : doneBytes / totalBytes });
    });
    const facts = await Promise.race([loading, closed]);
    if (facts === undefined) return new RequestError("draining", "Cannot load model: the group is closed");
    this.#client = client;
    const model = { ...facts, id: this.#options.modelId, slices: [facts.kvPages], adapters: [facts.adapter] };
    this.#enter({ kind: "ready", epoch: this.#epoch, model });
    await Promise.race([client.lost, closed]);
    if (client.loss === undefined) await client.drain(this.#options.drainMs ?? DRAIN_MS);
    return this.#leave(client, await client.lost);
  }

  /** Leaves no process behind, and adds how it ended when the worker could not say so itself. */
  async #end(
    worker: WorkerProcess | undefined,
    client: WorkerClient | undefined,
    failure: Failure,
  ): Promise<Failure> {
    await client?.close();
    if (worker === undefined) return failure;
    const isClosing = this.#closing.signal.aborted;
    const ended = isClosing || await worker.endsWithin(LAST_WORDS_MS);
    await worker.stop(isClosing ? EXIT_MS : 0);
    const spoke = client?.loss instanceof WorkerFailure;
    return ended && !spoke ? { ...failure, reason: `${failure.reason}; ${worker.lastWords}` } : failure;
  }

  /** Ends the epoch of a lost worker, once, before anybody learns that a step failed; returns the reason. */
  #leave(client: WorkerClient, loss: CodedError): CodedError {
    if (this.#client !== client) return loss;
    this.#client = undefined;
    this.#epoch++;
    this.#enter({ kind: "loading", progress: 0 });
    return loss;
  }

  #enter(state: GroupState): void {
    if (this.#state.kind === "closed") return;
    this.#state = state;
    for (const listener of this.#listeners) listener(state);
  }
}

/** Resolves once the signal is aborted. */
function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined);
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
  });
}
