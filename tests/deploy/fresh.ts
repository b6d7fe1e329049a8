/**
 * From scratch to an answer: the commands of docs/operating.md, section "From scratch", in a fresh Debian root, each with the time at
 * which it began. `deno run -A tests/deploy/fresh.ts [--port N]` serves on that port and the next instead of 8000 and 8001. Needs root,
 * `debootstrap` and the registries of Debian and npm.
 */

import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { processTerminal } from "../../router/terminal.ts";
import { codeBlocks, inRoot, ROOT } from "../docs/pages.ts";
import { DebianRoot } from "./debian_root.ts";

const SECTION = "From scratch";
const DOCUMENTED_PORT = 8000;
const CHECKOUT = "/tidepool";
/** Polling until the service is ready. */
const WAITING = /^\+ (sleep 1|curl .*\/ready)$/;
const KEPT_LINES = 100;
const DEADLINE_MS = 15 * 60_000;

/** As a machine of its own: mounts and processes that end with the shell. */
const MACHINE = `mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" env -i "$@"`;

const terminal = processTerminal();

/** The shell blocks of the section, one after another. */
async function commands(): Promise<string> {
  const text = await Deno.readTextFile(inRoot("docs/operating.md"));
  const [, section = ""] = new RegExp(`^## ${SECTION}\n(.*?)^## `, "ms").exec(text) ?? [];
  const blocks = codeBlocks(section).filter(({ language }) => language === "sh");
  assert.ok(blocks.length > 0, `docs/operating.md has no commands under "${SECTION}"`);
  return blocks.map(({ code }) => code).join("");
}

/** Prints when each command began, and the last line that it said. */
class Transcript {
  readonly lines: string[] = [];
  readonly #seconds: () => string;

  constructor(seconds: () => string) {
    this.#seconds = seconds;
  }

  async follow(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#take(line);
    }
    this.#take(rest);
    this.#printLast();
  }

  #take(line: string): void {
    if (line === "" || WAITING.test(line)) return;
    if (line.startsWith("+ ")) {
      this.#printLast();
      terminal.line(`${this.#seconds()} ${line.slice(2)}`);
    }
    this.lines.push(line);
    this.lines.splice(0, this.lines.length - KEPT_LINES);
  }

  #printLast(): void {
    const last = this.lines.at(-1) ?? "";
    if (last !== "" && !last.startsWith("+ ")) terminal.line(`${" ".repeat(9)} ${last}`);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ args: [...Deno.args], options: { port: { type: "string" } } });
  const port = Number(values.port ?? DOCUMENTED_PORT);
  const script = (await commands()).replaceAll(/\b800[01]\b/g, (text) => String(Number(text) - DOCUMENTED_PORT + port));
  const startedMs = performance.now();
  const seconds = () => `${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s`;
  await using root = await DebianRoot.make();
  terminal.line(`${seconds()} a fresh Debian root is made`);
  await root.copyCheckout(new URL(ROOT).pathname, CHECKOUT);
  const env = {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: "/root",
    DEBIAN_FRONTEND: "noninteractive",
    // An answer ends without a line's end.
    PS4: "\n+ ",
    ...(port === DOCUMENTED_PORT ? {} : { TIDEPOOL_SERVE_PORT: String(port) }),
    ...root.registry,
  };
  const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const shell = ["sh", "-c", `cd ${CHECKOUT} && exec 2>&1 && set -ex\n${script}`];
  const machine = ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", MACHINE, root.path, ...words, ...shell];
  const child = new Deno.Command("unshare", {
    args: machine,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
    signal: AbortSignal.timeout(DEADLINE_MS),
  }).spawn();
  const transcript = new Transcript(seconds);
  const [{ success }] = await Promise.all([child.status, transcript.follow(child.stdout)]);
  const log = `${root.path}${CHECKOUT}/tidepool.log`;
  assert.ok(
    success,
    `a command has failed:\n${transcript.lines.join("\n")}\n${await Deno.readTextFile(log).catch(String)}`,
  );
  terminal.line(`${seconds()} every command has succeeded`);
}

await main();
