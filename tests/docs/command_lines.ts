/** Command lines of the pages: which flags they give to which command, and which commands know them. */

import type { Command } from "../../router/command.ts";
import { codeBlocks, inlineCode, inRoot, type Page, ROOT } from "./pages.ts";

/** What a command or a task of the project takes. */
export type KnownFlags = (name: string) => boolean;

/** Command or task → the flags it knows. */
export type Programs = ReadonlyMap<string, KnownFlags>;

/** Permissions of Deno itself, which pages name too. */
const PERMISSIONS = ["allow-net", "allow-read", "allow-write", "allow-env", "allow-sys", "allow-run", "allow-ffi"];

/** Reads the commands of `mod.ts` and the tasks of `deno.json`. */
export async function readPrograms(): Promise<Programs> {
  const programs = new Map<string, KnownFlags>();
  const table = (await Deno.readTextFile(inRoot("mod.ts"))).matchAll(/^ {2}(\w+): \(\) => import\("(.+)"\)/gm);
  for (const [, name = "", file = ""] of table) {
    const { command }: { readonly command: Command } = await import(new URL(file, ROOT).href);
    const flags = new Set(Object.keys(command.flags).map(kebabCase));
    programs.set(`mod.ts ${name}`, (flag) => flags.has(flag) || flag === "help");
  }
  const { tasks } = JSON.parse(await Deno.readTextFile(inRoot("deno.json"))) as {
    readonly tasks: Readonly<Record<string, { readonly command?: string }>>;
  };
  for (const [name, { command = "" }] of Object.entries(tasks)) {
    const known = programs.get(/mod\.ts \w+/.exec(command)?.[0] ?? "") ??
      await scriptFlags(/\S+\.ts/.exec(command)?.[0]);
    programs.set(`task ${name}`, known);
  }
  return programs;
}

/** A script declares its flags as `name: { type: … }`. */
async function scriptFlags(script: string | undefined): Promise<KnownFlags> {
  if (script === undefined) return () => false;
  const source = await Deno.readTextFile(inRoot(script));
  const flags = new Set([...source.matchAll(/^ +(\w+): \{ type: "/gm)].map(([, name = ""]) => name));
  return (flag) => flags.has(flag);
}

/** The commands, tasks and flags named by a page that do not exist. */
export function unknownFlags(page: Page, programs: Programs): readonly string[] {
  const unknown: string[] = [];
  const blocks = codeBlocks(page.text).filter(({ language }) => language === "sh" || language === "");
  const lines = [...blocks.flatMap(({ code }) => code.split("\n")), ...inlineCode(page.text)];
  for (const line of lines) {
    const words = line.replace(/\s#.*$/, "");
    const [, , program, rest = ""] = /\b(deno(?:@\S+)?) .*?((?:task|mod\.ts) [a-z][\w:]*)(.*)/.exec(words) ?? [];
    if (program !== undefined) {
      const known = programs.get(program);
      if (known === undefined) unknown.push(program);
      else unknown.push(...flagsIn(rest).filter((flag) => !known(flag)).map((flag) => `${program} --${flag}`));
    } else if (/^(serve|worker|chat|eval|calibrate|bench|doctor)? ?--/.test(words)) {
      const all = [...programs.values()];
      unknown.push(...flagsIn(words).filter((flag) => !all.some((known) => known(flag))).map((flag) => `--${flag}`));
    }
  }
  return unknown;
}

function flagsIn(words: string): readonly string[] {
  return [...words.matchAll(/(?:^|\s|\[)--([\w-]+)/g)].flatMap(([, flag = ""]) =>
    PERMISSIONS.includes(flag) ? [] : flag
  );
}

/** A flag as people write it: `kvTokens` is `kv-tokens`. */
export function kebabCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
