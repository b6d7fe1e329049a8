/** The command line as a user has it: processes of `mod.ts`, with what they print. */

import { fileURLToPath } from "node:url";

const ENTRY = fileURLToPath(new URL("../../mod.ts", import.meta.url));

/** How a command is started. */
export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Text on stdin, which ends after it. @default no stdin at all */
  readonly stdin?: string;
  /** It runs on a terminal of its own, on which `type` types; stdout has all that it shows. @default false */
  readonly terminal?: boolean;
}

/** How a command ended. */
export interface CliEnd {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end; it is killed after three minutes. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliEnd> {
  const cli = new Cli(args, options);
  const timer = setTimeout(() => cli.kill("SIGKILL"), 180_000);
  return await cli.end.finally(() => clearTimeout(timer));
}

/** A running command, for `await using`. */
export class Cli {
  /** When the process has ended and all it printed is read. */
  readonly end: Promise<CliEnd>;
  readonly #child: Deno.ChildProcess;
  #ended = false;
  #stdout = "";
  #stderr = "";
  #keys: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #onOutput: (() => void)[] = [];

  constructor(args: readonly string[], { env = {}, stdin, terminal = false }: CliOptions = {}) {
    const line = [Deno.execPath(), "run", "--quiet", "-A", ENTRY, ...args];
    const quoted = line.map((word) => `'${word}'`).join(" ");
    const [command = "", ...rest] = terminal ? ["script", "-q", "-e", "-c", quoted, "/dev/null"] : line;
    this.#child = new Deno.Command(command, {
      args: rest,
      env: { NO_COLOR: "1", ...env },
      stdin: stdin === undefined && !terminal ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.end = this.#run(stdin);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Types on its terminal. */
  async type(text: string): Promise<void> {
    this.#keys ??= this.#child.stdin.getWriter();
    await this.#keys.write(new TextEncoder().encode(text));
  }

  /** Kills what still runs, so that a test that failed leaves nothing behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await this.end;
  }

  /** Harmless when the process has ended. */
  kill(signal: Deno.Signal): void {
    if (!this.#ended) this.#child.kill(signal);
  }

  /**
   * The first match in what it printed.
   * @throws when the process ends, or three minutes pass, without one
   */
  async printed(pattern: RegExp, where: "stdout" | "stderr" = "stdout"): Promise<RegExpExecArray> {
    const deadline = performance.now() + 180_000;
    for (;;) {
      const match = pattern.exec(where === "stdout" ? this.#stdout : this.#stderr);
      if (match !== null) return match;
      if (this.#ended || performance.now() > deadline) {
        throw new Error(`Cannot find ${pattern} in:\n${this.#stdout}\nstderr:\n${this.#stderr}`);
      }
      let timer: ReturnType<typeof setTimeout> | undefined;
      const more = new Promise<void>((resolve) => this.#onOutput.push(resolve));
      const late = new Promise<void>((resolve) => timer = setTimeout(resolve, deadline - performance.now()));
      await Promise.race([more, late, this.end]).finally(() => clearTimeout(timer));
    }
  }

  async #run(stdin: string | undefined): Promise<CliEnd> {
    const writing = stdin === undefined ? undefined : this.#pipe(stdin);
    const [{ code }] = await Promise.all([
      this.#child.status.finally(() => this.#ended = true),
      this.#collect(this.#child.stdout, (text) => this.#stdout += text),
      this.#collect(this.#child.stderr, (text) => this.#stderr += text),
      writing,
    ]);
    await this.#keys?.close().catch(() => {});
    return { code, stdout: this.#stdout, stderr: this.#stderr };
  }

  async #pipe(text: string): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  }

  async #collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      add(decoder.decode(chunk, { stream: true }));
      for (const resolve of this.#onOutput.splice(0)) resolve();
    }
  }
}
