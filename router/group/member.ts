/**
 * One place in a group: a worker that is started, loaded with the model and, when it is lost, started again, until it is
 * given up. Knows one worker and its life; knows nothing of the others or of epochs.
 */

import { messageOf } from "../../kernels/errors.ts";
import type { EngineInfo } from "../../engine/engine_info.ts";
import type { CodedError } from "../../kernels/errors.ts";
import type { LoadRequest } from "../../workers/engine_host.ts";
import { HandshakeError } from "../../workers/errors.ts";
import { type Address, UNKNOWN_FAILURE } from "../../workers/protocol.ts";
import { RequestError } from "../errors.ts";
import { RESTART_NUMBERS, type RestartNumbers, RestartPolicy } from "./restart_policy.ts";
import { pause } from "./pause.ts";
import { type Patience, WorkerClient, WorkerFailure } from "./worker_client.ts";
import type { WorkerHost, WorkerSource } from "./worker_source.ts";

/** How long an idle worker may take to exit when the group closes. */
const DRAIN_MS = 1000;

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

/** A worker that was asked to stop is not waited for. */
const LEFT: Extract<MemberState, { readonly kind: "away" }> = {
  kind: "away",
  reason: "it was asked to stop",
  isFinal: false,
};

/** Where a member is in its life. */
export type MemberState =
  | { readonly kind: "starting"; readonly progress: number }
  | { readonly kind: "present"; readonly worker: PresentWorker }
  /** It was asked to stop, and exits once it is released. */
  | { readonly kind: "leaving"; readonly worker: PresentWorker }
  /** Given up; it may come back if it is started again elsewhere. Final: as it is, another try ends the same. */
  | { readonly kind: "away"; readonly reason: string; readonly isFinal: boolean };

/** A worker that has loaded the model. */
export interface PresentWorker {
  readonly client: WorkerClient;
  readonly info: EngineInfo;
  readonly address: Address;
}

/** What a member is made of. */
export interface MemberOptions {
  /** Its place in the list of members. */
  readonly index: number;
  /** For people, e.g. `worker 1`. */
  readonly name: string;
  /** Why it is not to be tried at all. */
  readonly refusal: string | undefined;
  readonly source: WorkerSource;
  readonly load: LoadRequest;
  /** Of the group, for the handshake. */
  readonly epoch: () => number;
  /** Called after every change of state. */
  readonly onChange: () => void;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  readonly patience: Patience;
  /** Unless the source has its own. */
  readonly restarts: RestartNumbers | undefined;
}

/** Why a worker ended, and whether another try would end the same. */
interface Failure {
  readonly reason: string;
  readonly isFinal: boolean;
}

/** See the top of this file. */
export class Member {
  readonly #options: MemberOptions;
  readonly #restarts: RestartNumbers;
  #forgotten = new AbortController();
  #state: MemberState = { kind: "starting", progress: 0 };
  #release = Promise.withResolvers<void>();

  constructor(options: MemberOptions) {
    this.#options = options;
    this.#restarts = options.source.restarts ?? options.restarts ?? RESTART_NUMBERS;
    if (options.refusal !== undefined) this.#state = { kind: "away", reason: options.refusal, isFinal: true };
  }

  get index(): number {
    return this.#options.index;
  }

  /** Whether it is started again elsewhere, so that it may come back. */
  get mayReturn(): boolean {
    return this.#options.source.returns;
  }

  /** Whether it has not been forgotten. */
  get isKnown(): boolean {
    return !this.#forgotten.signal.aborted;
  }

  /** It is not started or dialled again; an open connection is used as long as it lasts. */
  forget(): void {
    this.#forgotten.abort();
  }

  /** Takes back that it was forgotten: it is still there. */
  remember(): void {
    if (!this.isKnown) this.#forgotten = new AbortController();
  }

  /** Lets a worker that is leaving go. */
  release(): void {
    this.#release.resolve();
  }

  get name(): string {
    return this.#options.name;
  }

  get state(): MemberState {
    const state = this.#state;
    const isThere = state.kind === "present" || state.kind === "leaving";
    if (!isThere || state.worker.client.loss === undefined) return state;
    return state.kind === "leaving" ? LEFT : { kind: "starting", progress: 0 };
  }

  /** Keeps the worker going until it is given up for good or the signal is aborted; leaves no process behind. */
  async supervise(closing: AbortSignal): Promise<void> {
    const policy = new RestartPolicy(this.#restarts);
    while (!closing.aborted && this.isKnown && this.#options.refusal === undefined) {
      const { reason, isFinal } = await this.#serveOnce(closing);
      if (closing.aborted || !this.isKnown) return;
      const told = this.#state.kind === "away" ? this.#state.reason : undefined;
      if (told !== reason) this.#options.log(`${capitalized(this.name)} is lost: ${reason}`);
      const delayMs = isFinal ? undefined : policy.failed(performance.now());
      if (told !== undefined || delayMs === undefined) this.#enter({ kind: "away", reason, isFinal });
      if (delayMs === undefined && !this.#options.source.returns) return;
      const over = AbortSignal.any([closing, this.#forgotten.signal]);
      await pause(delayMs ?? this.#restarts.longestDelayMs, over);
    }
  }

  /** The life of one worker, from its start to its end. */
  async #serveOnce(closing: AbortSignal): Promise<Failure> {
    let host: WorkerHost | undefined;
    let client: WorkerClient | undefined;
    let failure: Failure;
    try {
      const { source, epoch, index, patience } = this.#options;
      host = await source.start(closing);
      const place = { ...host.address, secret: host.secret, trust: host.trust, epoch: epoch(), workerIndex: index };
      client = await WorkerClient.connect(place, patience);
      const loss = await this.#serveWith(client, host.address, closing);
      failure = { reason: this.#state.kind === "leaving" ? LEFT.reason : loss.message, isFinal: false };
    } catch (error) {
      failure = { reason: messageOf(error), isFinal: isFinal(error) };
    }
    if (this.#state.kind === "leaving") this.#enter(LEFT);
    else if (this.#state.kind !== "away") this.#enter({ kind: "starting", progress: 0 });
    await client?.close();
    return await this.#end(host, closing, { failure, spoke: client?.loss instanceof WorkerFailure });
  }

  /** Loads the model and is present until the worker is lost or the group closes; throws when loading fails. */
  async #serveWith(client: WorkerClient, address: Address, closing: AbortSignal): Promise<CodedError> {
    const closed = aborted(closing);
    // The handshake succeeded: what was in its way may be over.
    if (this.#state.kind === "away") this.#enter({ ...this.#state, isFinal: false });
    const loading = client.load(this.#options.load, (doneBytes, totalBytes) => {
      if (this.#state.kind === "away") return;
      this.#enter({ kind: "starting", progress: totalBytes === 0 ? 0 : doneBytes / totalBytes });
    });
    const info = await Promise.race([loading, closed]);
    if (info === undefined) return new RequestError("draining", "Cannot load model: the group is closed");
    const worker = { client, info, address };
    this.#enter({ kind: "present", worker });
    await Promise.race([client.lost, client.leaving, closed]);
    if (client.loss === undefined && !closing.aborted) await this.#seeOff(worker, closed);
    if (client.loss === undefined) await client.drain(DRAIN_MS);
    return await client.lost;
  }

  /** Waits until the worker is no longer needed, or is lost. */
  async #seeOff(worker: PresentWorker, closed: Promise<undefined>): Promise<void> {
    this.#options.log(`${capitalized(this.name)} was asked to stop, and leaves the group`);
    this.#release = Promise.withResolvers();
    this.#enter({ kind: "leaving", worker });
    await Promise.race([this.#release.promise, worker.client.lost, closed]);
  }

  /** Leaves no process behind, and adds how it ended when the worker could not say so itself. */
  async #end(
    host: WorkerHost | undefined,
    closing: AbortSignal,
    { failure, spoke }: { readonly failure: Failure; readonly spoke: boolean },
  ): Promise<Failure> {
    if (host === undefined) return failure;
    const ended = closing.aborted || await host.endsWithin(LAST_WORDS_MS);
    await host.stop(closing.aborted ? EXIT_MS : 0);
    if (!ended || spoke || host.lastWords === undefined) return failure;
    return { ...failure, reason: `${failure.reason}; ${host.lastWords}` };
  }

  #enter(state: MemberState): void {
    this.#state = state;
    this.#options.onChange();
  }
}

function isFinal(error: unknown): boolean {
  if (error instanceof WorkerFailure) return !PASSING_FAILURES.includes(error.code);
  return error instanceof HandshakeError && (error.code === "wrong_secret" || error.code === "wrong_version");
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Resolves once the signal is aborted. */
function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined);
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}
