/**
 * A machine as a stranger has it, as far as this one can pass for one: a clean clone, empty HOME and caches, and a PATH
 * that holds Node, curl and what every Unix has, and no Deno. Knows directories and processes; knows nothing of the README.
 */

import { join } from "node:path";
import { Guard } from "../gate/guard.ts";
import { inRoot } from "./pages.ts";

/** Beside Node: what is on every Debian, and curl. */
const PROGRAMS = [
  ...["node", "npx", "npm", "curl", "sh", "env"],
  ...["basename", "cat", "chmod", "cp", "dirname", "head", "ls", "mkdir", "mv", "rm", "sed", "sleep", "uname"],
];

/** What of this machine's environment says how to reach the package registry. */
const NETWORK =
  /^(npm_config_.*|(https?|no)_proxy|node_extra_ca_certs|deno_tls_ca_store|deno_cert|ssl_cert_(file|dir))$/i;

/** What a command has printed, and how it ended. */
export interface Pasted {
  readonly code: number;
  readonly printed: string;
}

/** See the top of this file; for `await using` */
export class FreshMachine implements AsyncDisposable {
  readonly #place: string;
  readonly #guard = new Guard();

  private constructor(place: string) {
    this.#place = place;
  }

  /** Clones what is committed. @throws {Error} when a program is missing here, or git cannot clone */
  static async make(): Promise<FreshMachine> {
    const machine = new FreshMachine(await Deno.makeTempDir({ prefix: "tidepool-fresh-" }));
    const inside = (name: string) => join(machine.#place, name);
    for (const name of ["bin", "home", "deno"]) await Deno.mkdir(inside(name));
    for (const program of PROGRAMS) await Deno.symlink(await which(program), inside(`bin/${program}`));
    const { code, stderr } = await new Deno.Command("git", {
      args: ["clone", "--quiet", "--no-hardlinks", inRoot("."), inside("tidepool")],
    }).output();
    if (code !== 0) throw new Error(`Cannot clone: ${new TextDecoder().decode(stderr)}`);
    return machine;
  }

  /** Pastes lines into a shell in the clone, and waits for their end. @param deadlineMs kills all that they have started */
  async paste(lines: string, deadlineMs: number): Promise<Pasted> {
    const child = this.#spawn(lines);
    const late = setTimeout(() => this.#guard.end(child.pid), deadlineMs);
    const [out, err, { code }] = await Promise.all([text(child.stdout), text(child.stderr), child.status]);
    clearTimeout(late);
    this.#guard.end(child.pid);
    return { code, printed: out + err };
  }

  /** Pastes a line whose command goes on. @param onPrinted called with everything printed so far */
  start(
    line: string,
    onPrinted: (printed: string) => void,
  ): { readonly status: Promise<Deno.CommandStatus>; end(): void } {
    const child = this.#spawn(line);
    let printed = "";
    const show = async (stream: ReadableStream<Uint8Array>) => {
      for await (const part of stream.pipeThrough(new TextDecoderStream())) onPrinted(printed += part);
    };
    const shown = Promise.all([show(child.stdout), show(child.stderr)]);
    return { status: shown.then(() => child.status), end: () => this.#guard.end(child.pid) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guard[Symbol.asyncDispose]();
    await Deno.remove(this.#place, { recursive: true });
  }

  #spawn(lines: string): Deno.ChildProcess {
    const network = Object.entries(Deno.env.toObject()).filter(([name]) => NETWORK.test(name));
    const child = new Deno.Command("/bin/sh", {
      args: ["-euc", lines],
      cwd: join(this.#place, "tidepool"),
      clearEnv: true,
      env: {
        ...Object.fromEntries(network),
        ["PATH"]: join(this.#place, "bin"),
        ["HOME"]: join(this.#place, "home"),
        ["DENO_DIR"]: join(this.#place, "deno"),
        ["NO_COLOR"]: "1",
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
    this.#guard.watch(child.pid);
    return child;
  }
}

async function which(program: string): Promise<string> {
  for (const directory of (Deno.env.get("PATH") ?? "").split(":")) {
    const path = join(directory, program);
    const found = await Deno.stat(path).catch(() => undefined);
    if (found?.isFile) return path;
  }
  throw new Error(`Cannot make a fresh machine: ${program} is not on the PATH`);
}

async function text(stream: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(stream).text();
}
