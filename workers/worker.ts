/**
 * The entry of a worker process: where it listens, how it gets its secret, which signals it handles, when it exits.
 * Knows processes and sockets; knows nothing of what a step is. Called by the command, which gives it the engine.
 */

import type { EngineInfo } from "../engine/engine_info.ts";
import type { Step, StepResult } from "../engine/span.ts";
import type { OpenEngine } from "./engine_host.ts";
import { WorkerError } from "./errors.ts";
import { Link } from "./link.ts";
import { parseRouterMessage, type RouterMessage, type WorkerMessage } from "./protocol.ts";
import { Acceptor } from "./acceptor.ts";
import { RateLimitedLog } from "./rate_limited_log.ts";
import { type SessionOptions, WorkerSession } from "./session.ts";
import { listenFor, type TlsIdentity, type TlsTrust, type WorkerConn, type WorkerListener } from "./transport.ts";

/** How a worker process runs. */
export interface WorkerOptions {
  readonly open: OpenEngine;
  /**
   * A spawned worker reads its secret from the first line of stdin, prints the line of `announcement` on stdout, ignores
   * SIGINT (Ctrl-C reaches the whole terminal, and the router drains it), and exits when no router comes.
   */
  readonly spawned: boolean;
  /** @default { hostname: "127.0.0.1", port: 0 } */
  readonly listen?: { readonly hostname: string; readonly port: number };
  /** Of a worker that is not spawned; must be there to listen beyond loopback, at least 16 characters. */
  readonly secret?: string;
  /** Undefined: everything is clear text. */
  readonly tls?: TlsIdentity & TlsTrust;
  /** @default 10000 */
  readonly silenceMs?: number;
  /** Called after each step that was run, for telemetry. */
  readonly onStep?: (traceparents: readonly string[], step: Step, result: StepResult) => void;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** Called once the worker listens. */
  readonly onListen?: (address: WorkerListener["addr"]) => void;
  /** Called once it has loaded a model. */
  readonly onLoaded?: (info: EngineInfo) => void;
  /** Called at once when the worker is asked to stop. */
  readonly onStopping?: () => void;
  /** How long a worker that was asked to stop waits for its router to let it go. @default 15000 */
  readonly drainMs?: number;
}

const DEFAULT_SILENCE_MS = 10_000;
const DEFAULT_DRAIN_MS = 15_000;
const STDIN_DEADLINE_MS = 5000;
const MIN_SECRET_CHARACTERS = 16;
const MAX_SECRET_BYTES = 1024;

/** The one line a spawned worker prints on stdout. */
export interface ListeningLine {
  readonly kind: "listening";
  readonly port: number;
}

/**
 * Serves one router, then returns the exit code: 0 when the router left or drained the worker, 1 when the worker failed.
 * The caller exits the process with it at once: work on the GPU may still be under way.
 * @throws {WorkerError} `insecure_listen`, `no_secret`, or `no_router` when none came to a spawned worker in time
 */
export async function runWorker(options: WorkerOptions): Promise<number> {
  const silenceMs = options.silenceMs ?? DEFAULT_SILENCE_MS;
  const secret = options.spawned ? await readSecret(Deno.stdin.readable) : options.secret;
  const place = options.listen ?? { hostname: "127.0.0.1", port: 0 };
  checkPlace(place, secret);
  const listener = await listenFor(place, options.tls);
  const refusals = new RateLimitedLog("A peer was turned away", options.log);
  const failures = new RateLimitedLog("No connection can be accepted for now", options.log);
  const acceptor = new Acceptor(listener, {
    secret,
    onRefused: (error) => refusals.record(error),
    onAcceptFailed: (error) => failures.record(error),
  });
  const signals = new StopSignals(options.spawned);
  try {
    if (options.spawned) await announce(listener.addr.port);
    options.onListen?.(listener.addr);
    const conn = await meetRouter(acceptor, {
      silenceMs: options.spawned ? silenceMs : undefined,
      stopped: signals.stopped,
    });
    return await serve(
      conn,
      { ...options, acceptor, secret, silenceMs, trust: options.tls, identity: options.tls },
      signals.stopped,
    );
  } catch (error) {
    if (signals.stopped.aborted && error === signals.stopped.reason) return 0;
    throw error;
  } finally {
    signals.close();
    await acceptor.close();
    refusals.close();
    failures.close();
  }
}

async function meetRouter(
  acceptor: Acceptor,
  { silenceMs, stopped }: { readonly silenceMs: number | undefined; readonly stopped: AbortSignal },
): Promise<WorkerConn> {
  const noRouter = new AbortController();
  const late = (ms: number) => noRouter.abort(noRouterError(ms));
  const timer = silenceMs === undefined ? undefined : setTimeout(late, silenceMs, silenceMs);
  try {
    return (await acceptor.router(AbortSignal.any([stopped, noRouter.signal]))).conn;
  } finally {
    clearTimeout(timer);
  }
}

async function serve(
  conn: WorkerConn,
  options:
    & Omit<WorkerOptions, "secret">
    & Pick<SessionOptions, "acceptor" | "secret" | "silenceMs" | "trust" | "identity">,
  stopped: AbortSignal,
): Promise<number> {
  const link = new Link<WorkerMessage, RouterMessage>(conn, { parse: parseRouterMessage });
  const { onStep = () => {}, onLoaded = () => {}, onStopping = () => {}, drainMs = DEFAULT_DRAIN_MS, ...rest } =
    options;
  const session = new WorkerSession(link, { ...rest, onStep, onLoaded });
  const stop = () => {
    onStopping();
    // A router that spawned its worker is being stopped itself, or wants the worker gone.
    if (options.spawned) link.close();
    else session.leave(drainMs);
  };
  stopped.addEventListener("abort", stop, { once: true });
  if (stopped.aborted) stop();
  const end = await session.serve();
  stopped.removeEventListener("abort", stop);
  return end === "over" ? 0 : 1;
}

function checkPlace(place: { hostname: string; port: number }, secret: string | undefined): void {
  const { hostname, port } = place;
  if (secret === undefined && !isLoopback(hostname)) {
    throw new WorkerError(
      "insecure_listen",
      `Cannot listen on ${hostname}:${port}: beyond loopback a secret is needed`,
    );
  }
  if (secret !== undefined && secret.length < MIN_SECRET_CHARACTERS) {
    throw new WorkerError(
      "no_secret",
      `Cannot listen on ${hostname}:${port}: the secret has ${secret.length} characters, at least ${MIN_SECRET_CHARACTERS} are needed`,
    );
  }
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

function noRouterError(silenceMs: number): WorkerError {
  return new WorkerError("no_router", `Cannot serve: no router came within ${silenceMs} ms`);
}

async function announce(port: number): Promise<void> {
  const line: ListeningLine = { kind: "listening", port };
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let written = 0; written < bytes.length;) written += await Deno.stdout.write(bytes.subarray(written));
}

/** Reads the first line; never from argv or the environment, where other processes could see it. */
async function readSecret(stdin: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stdin.pipeThrough(new TextDecoderStream()).getReader();
  const timer = setTimeout(() => reader.cancel(), STDIN_DEADLINE_MS);
  let line = "";
  try {
    for (let chunk = await reader.read(); !chunk.done && line.length < MAX_SECRET_BYTES; chunk = await reader.read()) {
      line += chunk.value;
      const end = line.indexOf("\n");
      if (end >= 0) return line.slice(0, end);
    }
  } finally {
    clearTimeout(timer);
    await reader.cancel();
  }
  throw new WorkerError("no_secret", "Cannot start: the launcher sent no secret on stdin");
}

/** The signals that end a worker early; `close` must be called, or the process cannot end by itself. */
class StopSignals {
  readonly #controller = new AbortController();
  readonly #stop = () => this.#controller.abort(new WorkerError("no_router", "Cannot serve: a signal came"));
  readonly #onInterrupt: () => void;

  constructor(spawned: boolean) {
    this.#onInterrupt = spawned ? () => {} : this.#stop;
    Deno.addSignalListener("SIGINT", this.#onInterrupt);
    if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", this.#stop);
  }

  get stopped(): AbortSignal {
    return this.#controller.signal;
  }

  close(): void {
    Deno.removeSignalListener("SIGINT", this.#onInterrupt);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", this.#stop);
  }
}
