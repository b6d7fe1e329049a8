/**
 * From the arguments after `mod.ts` to a command that runs: values of flags, their checks, and exit codes.
 */

import { parseArgs } from "node:util";
import { CodedError } from "../kernels/errors.ts";
import { type CommandTable, type Flag, flagName, type Flags, type FlagValues, variableName } from "./command.ts";
import { helpText, overview } from "./command_help.ts";
import { UsageError } from "./errors.ts";
import type { Terminal } from "./terminal.ts";

/** The oldest Deno whose WebGPU and telemetry were tried. */
export const OLDEST_DENO = "2.9.4";

/** Everything `runCommandLine` takes from its process. */
export interface CommandLine {
  readonly commands: CommandTable;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What `--version` prints. */
  readonly about: () => Promise<string>;
  readonly denoVersion: string;
}

/**
 * Runs the command that the arguments name.
 * @returns the exit code: 0, 1 when the command failed, 2 when the command line is wrong
 */
export async function runCommandLine(line: CommandLine, terminal: Terminal): Promise<number> {
  try {
    requireDeno(line.denoVersion);
    const [name, ...rest] = line.args;
    if (name === undefined || name === "--help" || name === "help") {
      terminal.line(await overview(line.commands, terminal.columns));
      return name === undefined ? 2 : 0;
    }
    if (name === "--version") {
      terminal.line(await line.about());
      return 0;
    }
    const load = Object.hasOwn(line.commands, name) ? line.commands[name] : undefined;
    if (load === undefined) {
      throw new UsageError(`Cannot run ${name}: must be one of ${Object.keys(line.commands).join(", ")}, or --help`);
    }
    const { command } = await load();
    if (rest.includes("--help")) {
      terminal.line(helpText(name, command, terminal.columns));
      return 0;
    }
    for (const variable of unknownVariables(name, command.flags, line.env)) {
      terminal.error(`Ignored ${variable}: ${name} has no such flag (see ${name} --help)`);
    }
    const source = { args: rest, env: line.env, argument: command.argument };
    return await command.run(parseFlags(name, command.flags, source), terminal);
  } catch (error) {
    terminal.error(describe(error));
    return error instanceof UsageError ? 2 : 1;
  }
}

/** A coded error is for people; anything else is a bug and shows where it happened. */
function describe(error: unknown): string {
  if (error instanceof CodedError) return error.message;
  return error instanceof Error ? error.stack ?? error.message : String(error);
}

function requireDeno(version: string): void {
  const [given, oldest] = [version, OLDEST_DENO].map((text) => text.split(/[.+-]/).map(Number));
  const at = [0, 1, 2].find((i) => given?.[i] !== oldest?.[i]);
  if (at !== undefined && (given?.[at] ?? 0) < (oldest?.[at] ?? 0)) {
    throw new UsageError(`Cannot run on Deno ${version}: needs ${OLDEST_DENO} or newer, e.g. npx -y deno@2.9.6`);
  }
}

/**
 * The only place where arguments and environment become values: the flag, else `TIDEPOOL_<COMMAND>_<FLAG>`, else the default.
 * The command is part of the variable's name because Kubernetes sets `TIDEPOOL_PORT` for a service called `tidepool`.
 * @throws {UsageError} for an unknown flag, a stray argument or a value out of range
 */
export function parseFlags<F extends Flags>(
  command: string,
  flags: F,
  source: {
    readonly args: readonly string[];
    readonly env: Readonly<Record<string, string>>;
    readonly argument?: string | undefined;
  },
): FlagValues<F> {
  const given = givenFlags(command, flags, source);
  const values: Record<string, ReturnType<typeof parseValue> | boolean | undefined> = {};
  for (const [key, flag] of Object.entries(flags)) {
    const variable = variableName(command, key);
    const argument = given.get(key);
    const text = argument ?? source.env[variable];
    const name = argument === undefined ? variable : `--${flagName(key)}`;
    if (flag.kind === "switch") values[key] = text !== undefined && switchValue(name, text);
    else values[key] = text === undefined ? flag.default : parseValue(name, flag, text);
  }
  return values as FlagValues<F>;
}

function givenFlags(
  command: string,
  flags: Flags,
  { args, argument }: { readonly args: readonly string[]; readonly argument?: string | undefined },
): Map<string, string> {
  const keys = new Map(Object.keys(flags).map((key) => [flagName(key), key]));
  const options = Object.fromEntries(
    [...keys].map(([name, key]) => [name, { type: flags[key]?.kind === "switch" ? "boolean" : "string" } as const]),
  );
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true });
  const given = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      if (argument !== undefined && !given.has(argument)) {
        given.set(argument, token.value);
        continue;
      }
      const most = argument === undefined ? "no argument" : "one argument";
      throw new UsageError(`Cannot run ${command}: takes ${most}, given "${token.value}"`);
    }
    const key = keys.get(token.name);
    if (key === undefined) {
      throw new UsageError(`Cannot run ${command}: unknown flag ${token.rawName} (see ${command} --help)`);
    }
    if (token.value === undefined && flags[key]?.kind !== "switch") {
      throw new UsageError(`Cannot parse ${token.rawName}: needs a value`);
    }
    given.set(key, token.value ?? "true");
  }
  return given;
}

/** Variables that look like flags of the command and are none: most likely misspelt. */
function unknownVariables(command: string, flags: Flags, env: Readonly<Record<string, string>>): readonly string[] {
  const known = new Set(Object.keys(flags).map((key) => variableName(command, key)));
  return Object.keys(env).filter((name) => name.startsWith(variableName(command, "")) && !known.has(name));
}

function switchValue(name: string, text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new UsageError(`Cannot parse ${name}: must be true or false, given "${text}"`);
}

type Integers = Extract<Flag, { kind: "integer" | "integers" }>;

function parseValue(
  name: string,
  flag: Exclude<Flag, { kind: "switch" }>,
  text: string,
): string | number | readonly (string | number)[] {
  if (flag.kind === "text") {
    if (text !== "") return text;
    throw new UsageError(`Cannot parse ${name}: must not be empty`);
  }
  if (flag.kind === "choice") {
    if (flag.choices.includes(text)) return text;
    throw new UsageError(`Cannot parse ${name}: must be one of ${flag.choices.join(", ")}, given "${text}"`);
  }
  if (flag.kind === "number") {
    const value = /^\d*\.?\d+$/.test(text) ? Number(text) : NaN;
    if (value > flag.above && value <= flag.max) return value;
    throw new UsageError(
      `Cannot parse ${name}: must be a number above ${flag.above} and at most ${flag.max}, given "${text}"`,
    );
  }
  return flag.kind === "integer"
    ? parseInteger(name, flag, text)
    : text.split(",").map((part) => parseInteger(name, flag, part.trim()));
}

function parseInteger(name: string, flag: Integers, text: string): string | number {
  if (flag.or !== undefined && text === flag.or) return text;
  const value = /^-?\d+$/.test(text) ? Number(text) : NaN;
  if (value >= flag.min && value <= flag.max) return value;
  const bounds = `an integer from ${flag.min} to ${flag.max}${flag.or === undefined ? "" : ` or ${flag.or}`}`;
  const what = flag.kind === "integer" ? bounds : `${bounds}, or several, comma-separated`;
  throw new UsageError(`Cannot parse ${name}: must be ${what}, given "${text}"`);
}
