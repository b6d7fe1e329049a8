/** What a command is: its summary, its flags as data, and what it does with their values. */

import type { Terminal } from "./terminal.ts";

/** One flag of a command; its name is its key, `kvTokens` for `--kv-tokens`. */
export type Flag =
  & { readonly help: string }
  & (
    | { readonly kind: "switch" }
    | {
      readonly kind: "text";
      readonly value: string;
      readonly default?: string;
      /** What help says in place of a default that is a path on this machine. */
      readonly shownDefault?: string;
    }
    /** A decimal number above `above`. */
    | { readonly kind: "number"; readonly above: number; readonly max: number; readonly default?: number }
    | { readonly kind: "choice"; readonly choices: readonly string[]; readonly default?: string }
    | {
      readonly kind: "integer";
      readonly min: number;
      readonly max: number;
      /** A word that stands for a number found later. */
      readonly or?: "auto";
      readonly default?: number | "auto";
    }
    /** Several integers, comma-separated. */
    | {
      readonly kind: "integers";
      readonly min: number;
      readonly max: number;
      /** A word that stands for a number found later. */
      readonly or?: "auto";
      readonly default?: readonly (number | "auto")[];
    }
  );

/** All flags of a command. */
export type Flags = Readonly<Record<string, Flag>>;

type NumberOf<F extends Flag> = number | (F extends { or: infer Word } ? Word : never);

type ValueOf<F extends Flag> = F extends { kind: "switch" } ? boolean
  : F extends { kind: "integer" } ? NumberOf<F>
  : F extends { kind: "integers" } ? readonly NumberOf<F>[]
  : F extends { kind: "number" } ? number
  : F extends { kind: "choice"; choices: readonly (infer Choice)[] } ? Choice
  : string;

type MissingOf<F extends Flag> = F extends { kind: "switch" } | { default: string | number | readonly unknown[] }
  ? never
  : undefined;

/** What a command gets for its flags: `undefined` only for those without a default. */
export type FlagValues<F extends Flags> = { readonly [Name in keyof F]: ValueOf<F[Name]> | MissingOf<F[Name]> };

/** A command: `router/commands/x.ts` exports one as `command`. */
export interface Command<F extends Flags = Flags> {
  /** One line for `--help`. */
  readonly summary: string;
  readonly flags: F;
  /** The flag whose value may stand without its name. @default none: a stray argument is refused */
  readonly argument?: string;
  /** @returns the exit code of the process */
  run(values: FlagValues<F>, terminal: Terminal): Promise<number>;
}

/** Name → how to load the command; a command's modules are read only when it runs. */
export type CommandTable = Readonly<Record<string, () => Promise<{ readonly command: Command }>>>;

/** A flag's name without its dashes: `kv-tokens` for the key `kvTokens`. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The environment variable that stands for a flag: `TIDEPOOL_SERVE_KV_TOKENS`. */
export function variableName(command: string, key: string): string {
  return `TIDEPOOL_${command}_${flagName(key)}`.replaceAll("-", "_").toUpperCase();
}
