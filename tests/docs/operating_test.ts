/** operating.md names every flag of `serve`, and messages as the code words them. */

import assert from "node:assert/strict";
import { command } from "../../router/commands/serve.ts";
import { kebabCase } from "./command_lines.ts";
import { inlineCode, inRoot, section } from "./pages.ts";

const ROOMS = ["kernels", "engine", "workers", "router"] as const;

const page = await Deno.readTextFile(inRoot("docs/operating.md"));

async function sources(directory: string): Promise<string> {
  const texts: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(directory)) {
    if (isDirectory) texts.push(await sources(`${directory}/${name}`));
    else if (name.endsWith(".ts")) texts.push(await Deno.readTextFile(`${directory}/${name}`));
  }
  return texts.join("\n");
}

/** What a message says whatever it is about: between values (`…`), and around `must be`, which one function writes for all. */
function fixedParts(message: string): readonly string[] {
  return message.split(/:? ?…:?| must be /).map((part) => part.trim()).filter((part) => /\w{4,}/.test(part));
}

Deno.test("operating.md names every flag of serve", () => {
  const named = new Set([...section(page, "Flags").matchAll(/`--([\w-]+)`/g)].map(([, flag]) => flag));
  assert.deepEqual(Object.keys(command.flags).map(kebabCase).filter((flag) => !named.has(flag)), []);
});

Deno.test("operating.md words messages as the code does", async () => {
  const source = (await Promise.all(ROOMS.map((room) => sources(inRoot(room))))).join("\n");
  const messages = [...section(page, "Messages").matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell = ""]) =>
    inlineCode(cell)
  );
  assert.ok(messages.length >= 20, `${messages.length} messages`);
  assert.deepEqual(messages.flatMap(fixedParts).filter((part) => !source.includes(part)), []);
});
