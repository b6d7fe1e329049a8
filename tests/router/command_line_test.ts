/** What the command line accepts, refuses and explains. */

import assert from "node:assert/strict";
import type { Command } from "../../router/command.ts";
import { helpText } from "../../router/command_help.ts";
import { parseFlags, runCommandLine } from "../../router/command_line.ts";
import { UsageError } from "../../router/errors.ts";
import { MemoryTerminal } from "../support/memory_terminal.ts";

const flags = {
  port: { kind: "integer", min: 0, max: 65535, default: 8000, help: "port to listen on" },
  kvTokens: { kind: "integer", min: 64, max: 1000, or: "auto", default: "auto", help: "KV capacity" },
  sizes: { kind: "integers", min: 1, max: 9, or: "auto", default: ["auto", 2], help: "some sizes" },
  share: { kind: "number", above: 0, max: 1, help: "a share" },
  name: { kind: "text", value: "NAME", help: "a name" },
  log: { kind: "choice", choices: ["text", "json"], default: "text", help: "log lines" },
  json: { kind: "switch", help: "as JSON" },
} as const;

const command: Command<typeof flags> = {
  summary: "Greets",
  flags,
  run(values, terminal) {
    terminal.line(JSON.stringify(values));
    return Promise.resolve(0);
  },
};

function parse(args: string[], env: Record<string, string> = {}): unknown {
  return parseFlags("greet", flags, { args, env });
}

function run(
  args: string[],
  { denoVersion = "2.9.6", env = {} }: { denoVersion?: string; env?: Record<string, string> } = {},
): Promise<{ code: number; terminal: MemoryTerminal }> {
  const terminal = new MemoryTerminal();
  const commands = { greet: () => Promise.resolve({ command }) };
  return runCommandLine(
    { commands, args, env, about: () => Promise.resolve("tidepool 1.2.3"), denoVersion },
    terminal,
  )
    .then((code) => ({ code, terminal }));
}

Deno.test("parseFlags() fills in defaults and leaves flags without one undefined", () => {
  assert.deepEqual(parse([]), {
    port: 8000,
    kvTokens: "auto",
    sizes: ["auto", 2],
    share: undefined,
    name: undefined,
    log: "text",
    json: false,
  });
});

Deno.test("parseFlags() takes the flag before the environment and the environment before the default", () => {
  const env = { TIDEPOOL_GREET_PORT: "1", TIDEPOOL_GREET_KV_TOKENS: "128", TIDEPOOL_GREET_JSON: "true" };
  const args = ["--port", "2", "--log=json", "--name=--x", "--sizes", "9, 1,auto", "--share", "0.25"];
  assert.deepEqual(parse(args, env), {
    port: 2,
    kvTokens: 128,
    sizes: [9, 1, "auto"],
    share: 0.25,
    name: "--x",
    log: "json",
    json: true,
  });
});

for (
  const [args, message] of [
    [["--port", "x"], 'Cannot parse --port: must be an integer from 0 to 65535, given "x"'],
    [["--port", "65536"], 'Cannot parse --port: must be an integer from 0 to 65535, given "65536"'],
    [["--port", "-1"], 'Cannot parse --port: must be an integer from 0 to 65535, given "-1"'],
    [["--port", "1e3"], 'Cannot parse --port: must be an integer from 0 to 65535, given "1e3"'],
    [["--port="], 'Cannot parse --port: must be an integer from 0 to 65535, given ""'],
    [["--port"], "Cannot parse --port: needs a value"],
    [["--kv-tokens", "63"], 'Cannot parse --kv-tokens: must be an integer from 64 to 1000 or auto, given "63"'],
    [["--kvTokens", "64"], "Cannot run greet: unknown flag --kvTokens (see greet --help)"],
    [
      ["--sizes", "1,,2"],
      'Cannot parse --sizes: must be an integer from 1 to 9 or auto, or several, comma-separated, given ""',
    ],
    [["--share", "0"], 'Cannot parse --share: must be a number above 0 and at most 1, given "0"'],
    [["--share", "1.01"], 'Cannot parse --share: must be a number above 0 and at most 1, given "1.01"'],
    [["--share", "half"], 'Cannot parse --share: must be a number above 0 and at most 1, given "half"'],
    [["--name="], "Cannot parse --name: must not be empty"],
    [["--log", "xml"], 'Cannot parse --log: must be one of text, json, given "xml"'],
    [["--json=maybe"], 'Cannot parse --json: must be true or false, given "maybe"'],
    [["--prot", "1"], "Cannot run greet: unknown flag --prot (see greet --help)"],
    [["-p"], "Cannot run greet: unknown flag -p (see greet --help)"],
    [["there"], 'Cannot run greet: takes no argument, given "there"'],
  ] as const
) {
  Deno.test(`parseFlags() refuses ${args.join(" ")} in one line`, () => {
    assert.throws(() => parse([...args]), (error) => error instanceof UsageError && error.message === message);
  });
}

Deno.test("parseFlags() names the variable when the environment is at fault", () => {
  assert.throws(() => parse([], { TIDEPOOL_GREET_PORT: "http" }), {
    message: 'Cannot parse TIDEPOOL_GREET_PORT: must be an integer from 0 to 65535, given "http"',
  });
});

Deno.test("runCommandLine() runs the command with its values", async () => {
  const { code, terminal } = await run(["greet", "--port", "7"]);
  assert.equal(code, 0);
  assert.equal(JSON.parse(terminal.out).port, 7);
});

Deno.test("runCommandLine() ends with 2 and one line on stderr for what it does not know", async () => {
  for (const args of [["dance"], ["--foo"], ["greet", "--foo"], ["toString"]]) {
    const { code, terminal } = await run(args);
    assert.equal(code, 2, args.join(" "));
    assert.equal(terminal.errors.length, 1);
    assert.ok(!terminal.errors[0]?.includes("\n"), terminal.errors[0]);
    assert.equal(terminal.out, "");
  }
});

Deno.test("runCommandLine() shows every command, and every flag with its default", async () => {
  assert.match((await run(["--help"])).terminal.out, /greet {2}Greets/);
  const help = (await run(["greet", "--help"])).terminal.out;
  for (const name of ["--port N", "--kv-tokens N|auto", "--name NAME", "--log text|json", "--json"]) {
    assert.ok(help.includes(`  ${name} `), `${name} in:\n${help}`);
  }
  assert.match(help, /port to listen on \(default: 8000\)/);
  assert.equal(help.trimEnd(), helpText("greet", command, 100));
});

Deno.test("helpText() keeps to the width of the terminal, and begins below what is too long for the left column", () => {
  const flags = {
    port: { kind: "integer", min: 0, max: 65535, default: 8000, help: "port to listen on; 0 takes a free one" },
    quantize: { kind: "choice", choices: ["q8", "q4", "q5", "q4k", "q5k", "q6k"], help: "keep weights in 8 or 4 bits" },
  } as const;
  assert.equal(
    helpText("greet", { ...command, flags } as unknown as Command, 62),
    `Usage: deno run -A mod.ts greet [flags]

Greets

  --port N                      port to listen on; 0 takes a
                                free one (default: 8000)
  --quantize q8|q4|q5|q4k|q5k|q6k
                                keep weights in 8 or 4 bits

Flags can be set in the environment too: --port as
TIDEPOOL_GREET_PORT.`,
  );
});

Deno.test("runCommandLine() names variables that look like flags and are none", async () => {
  const { code, terminal } = await run(["greet"], { env: { TIDEPOOL_GREET_PROT: "1", TIDEPOOL_GREET_PORT: "2" } });
  assert.equal(code, 0);
  assert.deepEqual(terminal.errors, ["Ignored TIDEPOOL_GREET_PROT: greet has no such flag (see greet --help)"]);
  assert.equal(JSON.parse(terminal.out).port, 2);
});

Deno.test("runCommandLine() prints its version, and refuses a Deno that is too old", async () => {
  assert.equal((await run(["--version"])).terminal.out, "tidepool 1.2.3\n");
  for (const version of ["2.9.3", "2.8.9", "1.46.0"]) {
    const { code, terminal } = await run(["greet"], { denoVersion: version });
    assert.equal(code, 2);
    assert.match(terminal.errors[0] ?? "", /needs 2\.9\.4 or newer/);
  }
  for (const version of ["2.9.4", "2.10.0", "3.0.0", "2.9.5+abc"]) {
    assert.equal((await run(["greet"], { denoVersion: version })).code, 0);
  }
});

Deno.test("parseFlags() takes one argument without a name where a command has one", () => {
  const flags = { model: { kind: "text", value: "NAME", help: "a name" } } as const;
  const read = (...args: string[]) => parseFlags("pull", flags, { args, env: {}, argument: "model" });
  assert.deepEqual(read("org/model"), { model: "org/model" });
  assert.deepEqual(read("--model", "org/model"), { model: "org/model" });
  assert.throws(() => read("a/b", "c/d"), { message: 'Cannot run pull: takes one argument, given "c/d"' });
});
