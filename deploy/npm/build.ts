/**
 * Puts the npm package together: `deno run -A deploy/npm/build.ts OUT`, then `npm publish OUT`. The version is that of
 * `deno.json`; `--version` of the package prints the commit.
 */

import { fileURLToPath } from "node:url";
import project from "../../deno.json" with { type: "json" };

const ROOT = new URL("../../", import.meta.url);

/** What runs, and what the permissions of the image and of systemd need. */
const PROGRAM = [
  "deno.json",
  "deno.lock",
  "mod.ts",
  "LICENSE",
  "kernels",
  "engine",
  "workers",
  "router",
  "deploy/models",
];
const SCRIPTS = ["deploy/tidepool.sh"];

/** @param out a folder; made if it is not there */
export async function buildPackage(out: string, commit: string): Promise<void> {
  await Deno.mkdir(`${out}/program/deploy`, { recursive: true });
  for (const path of [...PROGRAM, ...SCRIPTS]) {
    await copy(new URL(path, ROOT), `${out}/program/${path}`);
  }
  await copy(new URL("deploy/npm/bin", ROOT), `${out}/bin`);
  await copy(new URL("README.md", ROOT), `${out}/README.md`);
  await Deno.writeTextFile(`${out}/program/COMMIT`, commit);
  const manifest = JSON.parse(
    await Deno.readTextFile(new URL("deploy/npm/manifest.json", ROOT)),
  );
  await Deno.writeTextFile(
    `${out}/package.json`,
    `${JSON.stringify({ ...manifest, version: project.version }, null, 2)}\n`,
  );
}

async function copy(from: URL, to: string): Promise<void> {
  if (!(await Deno.stat(from)).isDirectory) {
    return await Deno.copyFile(from, to);
  }
  await Deno.mkdir(to, { recursive: true });
  for await (const { name } of Deno.readDir(from)) {
    await copy(new URL(`${from.href}/${name}`), `${to}/${name}`);
  }
}

/** Of the checkout; empty where there is none, or no Git to ask. */
async function commitOf(directory: URL): Promise<string> {
  const options: Deno.CommandOptions = { args: ["rev-parse", "HEAD"], cwd: fileURLToPath(directory), stderr: "null" };
  try {
    const { success, stdout } = await new Deno.Command("git", options).output();
    return success ? new TextDecoder().decode(stdout).trim() : "";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

if (import.meta.main) {
  const [out] = Deno.args;
  if (out === undefined) {
    throw new Error(
      "Cannot build the package: a folder to put it into is needed",
    );
  }
  await buildPackage(out, await commitOf(ROOT));
}
