/** The tests of what is not committed yet, which are the likeliest to fail. Knows git and names of files; runs nothing. */

import { fileURLToPath } from "node:url";

/**
 * Test files that have changed, and those that stand where a changed file is tested: `engine/kv/x.ts` by
 * `tests/engine/kv/x_test.ts`. None where there is no git or no repository.
 * @param root of the repository, with a slash at its end
 * @returns paths within it, ascending
 */
export async function changedTests(root: URL): Promise<readonly string[]> {
  const found: string[] = [];
  for (const path of new Set((await changedFiles(root)).flatMap(testsOf))) {
    if (await isFile(new URL(path, root))) found.push(path);
  }
  return found.sort();
}

/** Where the tests of a file may be. */
export function testsOf(path: string): readonly string[] {
  if (!path.endsWith(".ts")) return [];
  if (path.endsWith("_test.ts")) return [path];
  return path.startsWith("tests/") ? [] : [`tests/${path.replace(/\.ts$/, "_test.ts")}`];
}

async function changedFiles(root: URL): Promise<readonly string[]> {
  const git = new Deno.Command("git", {
    args: ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"],
    cwd: fileURLToPath(root),
    stderr: "null",
  });
  try {
    const { code, stdout } = await git.output();
    if (code !== 0) return [];
    // Two letters of state and a space before each path.
    return new TextDecoder().decode(stdout).split("\0").map((entry) => entry.slice(3)).filter((path) => path !== "");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function isFile(url: URL): Promise<boolean> {
  try {
    return (await Deno.stat(url)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
