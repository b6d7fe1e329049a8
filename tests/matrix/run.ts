/**
 * Runs the tests of matrix kernels on a software driver that has matrix units: `deno run -A tests/matrix/run.ts [FILE…]`.
 * Where the driver cannot be had it says so and ends well, unless CI=true on a machine that should have it.
 */

import { fileURLToPath } from "node:url";
import { DAWN } from "../../kernels/dawn_provider.ts";
import { GpuError } from "../../kernels/errors.ts";
import { DriverUnavailable, matrixDriver } from "./driver.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = "tests/kernels/matrix";

async function main(given: readonly string[]): Promise<number> {
  const files = given.length > 0 ? given : [FOLDER];
  try {
    await requireDawn();
    const { program, args, env } = await matrixDriver(say);
    const child = new Deno.Command(program, {
      args: [...args, "test", "-A", "--no-check", ...files],
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

/** Loads Dawn's package, whatever driver this machine has: tests that need it must not fail one by one. */
async function requireDawn(): Promise<void> {
  try {
    await DAWN.adapters();
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    if (error.code === "provider_unavailable") throw new DriverUnavailable(error.message, { isExpected: true });
  }
}

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

Deno.exit(await main(Deno.args));
