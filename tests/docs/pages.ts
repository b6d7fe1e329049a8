/** The pages that people read, and what stands in them. */

import { fileURLToPath } from "node:url";

/** The root of the repository, with a slash at its end. */
export const ROOT = new URL("../../", import.meta.url);

/** A page. */
export interface Page {
  /** From the root of the repository. */
  readonly path: string;
  readonly text: string;
}

/** A fenced block of code. */
export interface CodeBlock {
  /** As written after the fence: `sh`, `ts`, … */
  readonly language: string;
  readonly code: string;
}

/** The README, its companions, and everything in `docs/`. */
export async function readPages(): Promise<readonly Page[]> {
  const paths = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"];
  for await (const { name } of Deno.readDir(new URL("docs", ROOT))) {
    if (name.endsWith(".md")) paths.push(`docs/${name}`);
  }
  return await Promise.all(paths.sort().map(async (path) => ({ path, text: await Deno.readTextFile(inRoot(path)) })));
}

/** The path of a file of the repository on this machine. */
export function inRoot(path: string): string {
  return fileURLToPath(new URL(path, ROOT));
}

/** The fenced blocks of a page. */
export function codeBlocks(text: string): readonly CodeBlock[] {
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language = "", code = ""]) => ({ language, code }));
}

/** A page without its fenced blocks. */
export function prose(text: string): string {
  return text.replaceAll(/^```.*?^```$/gms, "");
}

/** What stands between single backticks; spans may run over a line's end. */
export function inlineCode(text: string): readonly string[] {
  return [...prose(text).matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code.replaceAll(/\s+/g, " "));
}

/** What stands under a heading of the second level, up to the next one. @throws {RangeError} when the page has none such */
export function section(text: string, heading: string): string {
  const begin = text.indexOf(`\n## ${heading}\n`);
  if (begin < 0) throw new RangeError(`Cannot find ## ${heading}: the page has no such heading`);
  const end = text.indexOf("\n## ", begin + 1);
  return text.slice(begin, end < 0 ? undefined : end);
}
