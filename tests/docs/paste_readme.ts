/**
 * Pastes the README's commands on a fresh machine, in their order: `deno task test:readme`, `--port 0` where 8000 is taken.
 * Every command of the README is pasted, or listed here with the reason why not: one that is neither fails the run, and so
 * does a reason for a command that the README does not have.
 */

import assert from "node:assert/strict";
import { FreshMachine, type Pasted } from "./fresh_machine.ts";
import { codeBlocks, inlineCode, inRoot } from "./pages.ts";

const PORT = "8000";
/** Deno and all packages are fetched first. */
const START_MS = 600_000;
const COMMAND_MS = 300_000;
const ANSWER = /The magic number for harbour is 7391\./;

/** Beginnings of commands that are not pasted. */
const LEFT_OUT: readonly (readonly [string, string])[] = [
  ["npx -y deno@2.9.6 task test", "the gate, which runs by itself"],
  ["npx -y deno@2.9.6 task start --model", "needs a model that the reader has"],
  ["npx -y deno@2.9.6 task calibrate --model", "needs a model that the reader has"],
  ["npx -y deno@2.9.6 task bench", "takes minutes; the tables say what it has printed"],
  ["npx -y deno@2.9.6 task eval", "takes minutes; the tables say what it has printed"],
  ["npx -y deno@2.9.6 task chat", "needs a terminal"],
];

/** Commands of the README: how to start, then blocks that ask the service as a whole, of others each line, then those within sentences. */
async function commandsOf(): Promise<readonly string[]> {
  const readme = await Deno.readTextFile(inRoot("README.md"));
  // The first line says where the service answers, in a remark.
  const [first = ""] = codeBlocks(readme).map(({ code }) => code.split("\n")[0] ?? "");
  assert.match(first, new RegExp(`http://127\\.0\\.0\\.1:${PORT}$`));
  const start = first.replace(/\s+#.*$/, "");
  const blocks = codeBlocks(readme).filter(({ language }) => language === "sh").flatMap(({ code }) =>
    code.includes(`127.0.0.1:${PORT}`) && !code.startsWith(first)
      ? [code]
      : code.split("\n").map((line) => line.replace(/\s+#.*$/, ""))
  );
  const prose = inlineCode(readme).filter((code) =>
    code.startsWith("npx ") && !/ \.\.\.$|^npx -y deno@[\d.]+$/.test(code)
  );
  const lines = blocks.filter((line) => line !== "" && line !== start);
  return [start, ...lines, ...prose.map((code) => code.replace("COMMAND", "serve"))];
}

async function untilReady(origin: string, isOver: () => boolean): Promise<void> {
  const deadline = performance.now() + START_MS;
  while (performance.now() < deadline && !isOver()) {
    const status = await fetch(`${origin}/ready`).then(async ({ body, status }) => {
      await body?.cancel();
      return status;
    }, () => 0);
    if (status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`Cannot paste the README: the service was not ready within ${START_MS / 1000} s, or has ended`);
}

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

function show(command: string, { code, printed }: Pasted, startMs: number): void {
  say(`\n$ ${command.trimEnd()}\n${printed.trimEnd()}\n(${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
  assert.equal(code, 0, `it ended with ${code}`);
}

function freePort(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return String(listener.addr.port);
}

async function main(): Promise<void> {
  const port = Deno.args.join(" ") === "--port 0" ? freePort() : PORT;
  const here = (command: string) => command.replaceAll(`127.0.0.1:${PORT}`, `127.0.0.1:${port}`);
  const [start = "", ...others] = await commandsOf();
  const stale = LEFT_OUT.filter(([beginning]) => !others.some((command) => command.startsWith(beginning)));
  assert.deepEqual(stale, [], "left out, but not in the README");
  await using machine = await FreshMachine.make();
  const startMs = performance.now();
  const line = port === PORT ? start : `${start} --port ${port}`;
  say(`$ ${line}`);
  let shown = 0;
  let isOver = false;
  const service = machine.start(line, (printed) => {
    Deno.stdout.writeSync(new TextEncoder().encode(printed.slice(shown)));
    shown = printed.length;
  });
  service.status.then(() => isOver = true);
  await untilReady(`http://127.0.0.1:${port}`, () => isOver);
  say(`(ready after ${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
  for (const command of others) {
    const reason = LEFT_OUT.find(([beginning]) => command.startsWith(beginning))?.[1];
    if (reason !== undefined) {
      say(`\n- ${command}: not pasted, ${reason}`);
      continue;
    }
    const before = performance.now();
    const pasted = await machine.paste(here(command), COMMAND_MS);
    show(here(command), pasted, before);
    // The stream comes a piece a line.
    if (command.includes(`:${PORT}/v1`)) assert.match(pasted.printed.replaceAll("\n", ""), ANSWER);
  }
  service.end();
  await service.status;
}

if (import.meta.main) await main();
