/**
 * Worker processes on this machine: starts one, hands it its secret, learns its port, collects what it prints, and
 * makes sure that it is gone in the end. Knows processes; knows nothing of what a worker does.
 */

import { messageOf } from "../../kernels/errors.ts";
import type { ListeningLine } from "../../workers/worker.ts";
import { RequestError } from "../errors.ts";

/** How to start workers. */
export interface LauncherOptions {
  /** The module whose `worker --spawned` is a worker: `mod.ts`. */
  readonly entry: URL;
  /** Further arguments, e.g. telemetry flags. @default none */
  readonly args?: readonly string[];
  /** Program and arguments that run the worker's own command, which follows them, in the same process. @default none */
  readonly prefix?: readonly string[];
  /** Flags of Deno that say what the process may do. @default everything */
  readonly permissions?: readonly string[];
  /** Every line a worker prints, cut to 4096 characters. */
  readonly log: (line: string) => void;
  /** What workers that are to form a group must share. @default a fresh one for each worker */
  readonly secret?: string;
  /** How long a worker may take to listen; the first start may have to compile its modules. @default 60000 */
  readonly startMs?: number;
}

const START_MS = 60_000;
const MAX_LINE = 4096;
const TAIL_LINES = 20;
const TERM_MS = 2000;
/** A process inside a driver call cannot be killed before the call returns; waiting for ever would not help. */
const KILL_MS = 10_000;
/** For pipes that children of a dead worker might hold. */
const PIPE_MS = 1000;

/** Starts worker processes. */
export class Launcher {
  readonly #options: LauncherOptions;

  constructor(options: LauncherOptions) {
    this.#options = options;
  }

  /**
   * Starts a worker and waits until it listens.
   * @param signal gives up and kills the worker
   * @throws {RequestError} `worker_lost` when it exits, says nothing in time or is given up; no process is left then
   */
  async launch(signal?: AbortSignal): Promise<WorkerProcess> {
    const { entry, args = [], prefix = [], permissions = ["-A"], log } = this.#options;
    const { secret = freshSecret(), startMs = START_MS } = this.#options;
    const [program, ...words] = [...prefix, Deno.execPath()];
    const child = new Deno.Command(program ?? Deno.execPath(), {
      args: [...words, "run", "--quiet", ...permissions, entry.href, "worker", "--spawned", ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const worker = new WorkerProcess(child, { secret, log });
    try {
      await worker.start(startMs, signal);
      return worker;
    } catch (error) {
      await worker.stop(0);
      throw error;
    }
  }
}

/** A secret beyond guessing: 64 hexadecimal digits. */
export function freshSecret(): string {
  return [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One worker process; `stop` must be called, even when it has exited by itself. */
export class WorkerProcess {
  /** What both ends of its connection must know. */
  readonly secret: string;
  readonly pid: number;
  /** Resolves when the process has ended, never rejects. */
  readonly exited: Promise<Deno.CommandStatus>;
  readonly #child: Deno.ChildProcess;
  readonly #log: (line: string) => void;
  readonly #firstLine = Promise.withResolvers<string>();
  readonly #pipes: readonly Pipe[];
  readonly #tail: string[] = [];
  #status: Deno.CommandStatus | undefined;
  #port: number | undefined;

  constructor(child: Deno.ChildProcess, options: { readonly secret: string; readonly log: (line: string) => void }) {
    this.#child = child;
    this.#log = options.log;
    this.secret = options.secret;
    this.pid = child.pid;
    this.exited = child.status.then((status) => this.#status = status);
    this.#pipes = [
      new Pipe(child.stdout, (line) => this.#port === undefined ? this.#firstLine.resolve(line) : this.#print(line)),
      new Pipe(child.stderr, (line) => this.#print(line)),
    ];
  }

  /** Where the worker listens. */
  get address(): { readonly hostname: string; readonly port: number } {
    if (this.#port === undefined) throw new RequestError("worker_lost", "Cannot reach worker: it does not listen yet");
    return { hostname: "127.0.0.1", port: this.#port };
  }

  /** How the process ended and what it said last; undefined while it runs. */
  get lastWords(): string | undefined {
    if (this.#status === undefined) return undefined;
    const { signal, code } = this.#status;
    const end = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
    return [`worker process ${this.pid} ${end}`, ...this.#tail.slice(-1)].join(": ");
  }

  /**
   * Hands over the secret and waits for the announcement; called once, by the launcher.
   * @throws {RequestError} `worker_lost`
   */
  async start(deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const fail = (reason: string) => {
      this.#firstLine.reject(new RequestError("worker_lost", `Cannot start worker: ${reason}`));
    };
    const timer = setTimeout(() => fail(`it does not listen after ${deadlineMs} ms`), deadlineMs);
    const giveUp = () => fail("it is no longer wanted");
    signal?.addEventListener("abort", giveUp, { once: true });
    if (signal?.aborted) giveUp();
    this.exited.then(async () => {
      await this.#drainPipes();
      fail(this.lastWords ?? "it exited");
    });
    try {
      await Promise.race([this.#sendSecret(), this.#firstLine.promise]);
      this.#port = portOf(await this.#firstLine.promise);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /** Resolves with whether the process has ended by then. */
  async endsWithin(ms: number): Promise<boolean> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, ms));
    await Promise.race([this.exited, late]);
    clearTimeout(timer);
    return this.#status !== undefined;
  }

  /**
   * Waits for the process to end, then asks with SIGTERM, then insists with SIGKILL; nothing is left when this returns,
   * unless the system itself cannot end the process.
   * @param graceMs how long it may take to end by itself; 0 kills it at once, which is right for one that hangs
   */
  async stop(graceMs: number): Promise<void> {
    if (graceMs > 0 && !await this.endsWithin(graceMs)) {
      this.#signal("SIGTERM");
      await this.endsWithin(TERM_MS);
    }
    this.#signal("SIGKILL");
    if (!await this.endsWithin(KILL_MS)) this.#log(`Cannot end worker process ${this.pid}: it sits in its GPU driver`);
    await this.#drainPipes();
  }

  async #sendSecret(): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    try {
      await writer.write(new TextEncoder().encode(`${this.secret}\n`));
      await writer.close();
    } catch (error) {
      // The pipe breaks when the worker dies first; that it did, and why, is seen at its exit.
      this.#log(`Cannot send the secret to worker ${this.pid}: ${messageOf(error)}`);
    }
  }

  #signal(signal: Deno.Signal): void {
    if (this.#status !== undefined) return;
    try {
      this.#child.kill(signal);
    } catch (error) {
      // The process may have ended a moment ago, before its status was seen here.
      this.#log(`Cannot send ${signal} to worker ${this.pid}: ${messageOf(error)}`);
    }
  }

  async #drainPipes(): Promise<void> {
    await Promise.all(this.#pipes.map((pipe) => pipe.end(PIPE_MS)));
  }

  #print(line: string): void {
    this.#tail.push(line);
    if (this.#tail.length > TAIL_LINES) this.#tail.shift();
    this.#log(line);
  }
}

/** Cuts what a process prints into lines, and never holds more than one of them. */
class Pipe {
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #done: Promise<void>;

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>, onLine: (line: string) => void) {
    this.#reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    this.#done = this.#read(onLine);
  }

  /** Waits for the end of the stream, at most `deadlineMs`; then cancels it. */
  async end(deadlineMs: number): Promise<void> {
    const timer = setTimeout(() => this.#reader.cancel(), deadlineMs);
    await this.#done;
    clearTimeout(timer);
  }

  async #read(onLine: (line: string) => void): Promise<void> {
    let rest = "";
    for (let chunk = await this.#reader.read(); !chunk.done; chunk = await this.#reader.read()) {
      const lines = (rest + chunk.value).split("\n");
      rest = (lines.pop() ?? "").slice(0, MAX_LINE);
      for (const line of lines) if (line !== "") onLine(line.slice(0, MAX_LINE));
    }
    if (rest !== "") onLine(rest);
  }
}

function portOf(line: string): number {
  let listening: Partial<ListeningLine>;
  try {
    listening = JSON.parse(line);
  } catch (cause) {
    throw new RequestError("worker_lost", `Cannot start worker: it printed ${JSON.stringify(line.slice(0, 200))}`, {
      cause,
    });
  }
  const port = listening?.port;
  if (listening?.kind === "listening" && Number.isInteger(port) && port !== undefined) return port;
  throw new RequestError("worker_lost", `Cannot start worker: it printed ${line.slice(0, 200)}`);
}
