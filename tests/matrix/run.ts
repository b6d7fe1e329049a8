/**
 * Runs the tests of matrix kernels on a software driver that has matrix units: `deno run -A tests/matrix/run.ts [FILE…]`.
 * Where the driver cannot be had it says so and ends well, unless CI=true on a machine that should have it.
 */

import { fileURLToPath } from "node:url";
import { DriverUnavailable, matrixDriver } from "./driver.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = "tests/kernels/matrix";
const RUNNER = "tests/matrix/run_files.ts";

async function main(given: readonly string[]): Promise<number> {
  const files = given.length > 0 ? given : await testFiles();
  try {
    const { program, args, env } = await matrixDriver(say);
    const child = new Deno.Command(program, {
      args: [...args, "run", "--quiet", "-A", RUNNER, ...files],
      cwd: ROOT,
      env: { ...env, TIDEPOOL_GPU: "dawn", XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" },
    }).spawn();
    return (await child.status).code;
  } catch (error) {
    if (!(error instanceof DriverUnavailable)) throw error;
    say(`matrix kernels: not run here: ${error.message}`);
    return error.isExpected && Deno.env.get("CI") === "true" ? 1 : 0;
  }
}

async function testFiles(): Promise<readonly string[]> {
  const entries = await Array.fromAsync(Deno.readDir(new URL(`../../${FOLDER}`, import.meta.url)));
  return entries.map(({ name }) => `${FOLDER}/${name}`).filter((name) => name.endsWith("_test.ts")).sort();
}

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

Deno.exit(await main(Deno.args));
