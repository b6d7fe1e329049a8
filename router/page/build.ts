/// <reference lib="deno.ns" />

/**
 * Builds the page: one script and one style sheet for all its modules and packages, beside the files that are served as they
 * are. The result is kept in the repository: a router may neither write files nor run a bundler, and needs no registry.
 */

import { fileURLToPath } from "node:url";

const SOURCE = new URL("./", import.meta.url);

/** Served as they are. */
const PLAIN = ["index.html", "icon.svg"];

/** Where the router looks for it. */
export const BUILT: URL = new URL("./built/", SOURCE);

/**
 * Builds into a folder, which must exist.
 * @throws when the bundler fails, with what it said
 */
export async function buildPage(folder: URL): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform", "browser", "--minify", "--outdir", fileURLToPath(folder), "main.tsx"],
    cwd: fileURLToPath(SOURCE),
    env: { NO_COLOR: "1" },
  }).output();
  if (!success) throw new Error(`Cannot build the page: ${new TextDecoder().decode(stderr)}`);
  for (const file of PLAIN) await Deno.copyFile(new URL(file, SOURCE), new URL(file, folder));
}

if (import.meta.main) await buildPage(BUILT);
