/** A NATS server with JetStream for tests: Debian's `nats-server`, started and ended by the test. */

import { fileURLToPath } from "node:url";
import { freePort } from "./free_port.ts";
import { isInstalled } from "./is_installed.ts";

/** On a busy machine. */
const START_MS = 60_000;

/** Whether there is one to start; where there is none, tests that need it say so and are left out. */
export const HAS_NATS = await isInstalled("nats-server");

/** For a test's name. */
export const NATS_NOTE = HAS_NATS ? "" : " (left out: nats-server is not installed)";

/** See the top of this file; for `await using` */
export class NatsServer {
  readonly port: number;
  readonly #directory: string;
  #child: Deno.ChildProcess;

  private constructor(port: number, directory: string, child: Deno.ChildProcess) {
    this.port = port;
    this.#directory = directory;
    this.#child = child;
  }

  static async start(hostname = "127.0.0.1"): Promise<NatsServer> {
    const directory = await Deno.makeTempDir();
    const port = freePort();
    const server = new NatsServer(port, directory, spawn(port, directory));
    await server.#listens(hostname);
    return server;
  }

  /** `--join` and `--announce` for a group. */
  place(group: string): string {
    return `nats://127.0.0.1:${this.port}/${group}`;
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }

  /** Starts it again where it was. @param isEmpty with nothing of what it had stored */
  async restart({ isEmpty = false } = {}): Promise<void> {
    if (isEmpty) await Deno.remove(this.#directory, { recursive: true });
    this.#child = spawn(this.port, this.#directory);
    await this.#listens("127.0.0.1");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.#directory, { recursive: true });
  }

  async #listens(hostname: string): Promise<void> {
    const end = performance.now() + START_MS;
    for (;;) {
      try {
        (await Deno.connect({ hostname, port: this.port })).close();
        return;
      } catch (error) {
        if (!(error instanceof Deno.errors.ConnectionRefused) || performance.now() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
}

function spawn(port: number, directory: string): Deno.ChildProcess {
  return new Deno.Command("nats-server", {
    args: [
      "--addr",
      "127.0.0.1",
      "--port",
      String(port),
      "--jetstream",
      "--store_dir",
      fileURLToPath(`file://${directory}`),
    ],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
}
