/** A program on a host as a supervisor keeps it: started again whenever it ends, until it is to stop. */

import { pause } from "../../router/group/pause.ts";

const AGAIN_MS = 300;
const KEPT_LINES = 200;

/** See the top of this file; for `await using` */
export class HostProcess implements AsyncDisposable {
  /** What it printed last. */
  readonly lines: string[] = [];
  /** Exit codes so far; undefined for an end by signal. */
  readonly ends: (number | undefined)[] = [];
  readonly #command: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  readonly #over = new AbortController();
  readonly #life: Promise<void>;
  #child: Deno.ChildProcess | undefined;

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#command = command;
    this.#env = env;
    this.#life = this.#supervise();
  }

  /** Of the process that runs now; it may be started again. */
  kill(signal: Deno.Signal): void {
    this.#child?.kill(signal);
  }

  /** Asks it to end, and does not restart it. */
  async stop(): Promise<void> {
    this.#over.abort();
    this.kill("SIGTERM");
    await this.#life;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    this.kill("SIGKILL");
    await this.#life;
  }

  async #supervise(): Promise<void> {
    const [program = "", ...args] = this.#command;
    while (!this.#over.signal.aborted) {
      const child = new Deno.Command(program, {
        args,
        env: { ...this.#env },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      this.#child = child;
      const [{ code, signal }] = await Promise.all([child.status, this.#read(child.stdout), this.#read(child.stderr)]);
      this.#child = undefined;
      this.ends.push(signal === null ? code : undefined);
      await pause(AGAIN_MS, this.#over.signal);
    }
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.lines.push(...text.split("\n").filter((line) => line !== ""));
      this.lines.splice(0, Math.max(0, this.lines.length - KEPT_LINES));
    }
  }
}
