/**
 * Runs the files given, one after the other, without `deno test`: under it a wait for Dawn on a software driver takes
 * minutes instead of seconds (3 s of compiling took 186). Knows the part of `Deno.test` that tests of kernels use.
 */

import { fileURLToPath } from "node:url";
import { DAWN } from "../../kernels/dawn_provider.ts";
import { GpuError } from "../../kernels/errors.ts";

type Body = () => void | Promise<void>;

const ROOT = new URL("../..", import.meta.url);

/** What a file has registered. */
class Registry {
  readonly tests: { readonly name: string; readonly body: Body }[] = [];
  readonly beforeAll: Body[] = [];
  readonly afterEach: Body[] = [];
  readonly afterAll: Body[] = [];

  /** Takes the place of `Deno.test`. */
  get test(): unknown {
    return Object.assign((name: string, body: Body) => void this.tests.push({ name, body }), {
      beforeAll: (body: Body) => void this.beforeAll.push(body),
      afterEach: (body: Body) => void this.afterEach.push(body),
      afterAll: (body: Body) => void this.afterAll.push(body),
    });
  }
}

/** @returns how many tests passed and failed */
async function runFile(file: string): Promise<{ readonly passed: number; readonly failed: number }> {
  const registry = new Registry();
  Object.defineProperty(Deno, "test", { value: registry.test, configurable: true });
  await import(new URL(file, ROOT).href);
  let failed = 0;
  for (const body of registry.beforeAll) await body();
  for (const { name, body } of registry.tests) {
    const startMs = performance.now();
    const failure = await failureOf([body, ...registry.afterEach]);
    if (failure !== undefined) failed++;
    say(`${name} ... ${failure === undefined ? "ok" : "FAILED"} (${Math.round(performance.now() - startMs)}ms)`);
    if (failure !== undefined) say(failure);
  }
  for (const body of registry.afterAll) await body();
  return { passed: registry.tests.length - failed, failed };
}

async function failureOf(bodies: readonly Body[]): Promise<string | undefined> {
  let failure: string | undefined;
  for (const body of bodies) {
    try {
      await body();
    } catch (error) {
      failure ??= error instanceof Error ? error.stack ?? error.message : String(error);
    }
  }
  return failure;
}

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Ends where Dawn's package is neither cached nor reachable: a failure only where it must be. */
async function requireDawn(): Promise<void> {
  try {
    await DAWN.adapters();
  } catch (error) {
    if (!(error instanceof GpuError && error.code === "provider_unavailable")) throw error;
    say(`matrix kernels: not run here: ${error.message}`);
    Deno.exit(Deno.env.get("CI") === "true" ? 1 : 0);
  }
}

await requireDawn();
let [passed, failed] = [0, 0];
for (const file of Deno.args) {
  say(`running ${fileURLToPath(new URL(file, ROOT)).slice(fileURLToPath(ROOT).length)}`);
  const counts = await runFile(file);
  passed += counts.passed;
  failed += counts.failed;
}
say(`\n${failed === 0 ? "ok" : "FAILED"} | ${passed} passed | ${failed} failed`);
// Dawn's instances keep the process alive.
Deno.exit(failed === 0 && passed > 0 ? 0 : 1);
