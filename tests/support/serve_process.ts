/** `serve` as a process of its own: as users start it, and for runs that kill parts of it. */

import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** On a busy machine. */
const READY_MS = 300_000;

/** A running service. */
export interface ServeProcess {
  /** End it with SIGTERM, and wait for its status. */
  readonly child: Deno.ChildProcess;
  readonly origin: string;
}

/**
 * Starts it on a free port; resolves once it is ready.
 * @param command arguments of Deno. @default `serve` with all permissions
 * @throws {Error} when it is not ready in time
 */
export async function serveProcess(
  flags: readonly string[],
  command: readonly string[] = ["run", "-A", "mod.ts", "serve"],
): Promise<ServeProcess> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...command, "--port", "0", ...flags],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const found = Promise.withResolvers<string>();
  const timer = setTimeout(() => {
    child.kill("SIGTERM");
    found.reject(new Error(`Cannot start: the service is not ready after ${READY_MS} ms`));
  }, READY_MS);
  // Read to the end, or the service would wait for its reader.
  let said = "";
  child.stdout.pipeThrough(new TextDecoderStream()).pipeTo(
    new WritableStream({
      write(piece) {
        said = (said + piece).slice(-4096);
        const origin = /serves .* at (http:\S+)\/v1/.exec(said)?.[1];
        if (origin !== undefined) found.resolve(origin);
      },
    }),
  );
  const origin = await found.promise.finally(() => clearTimeout(timer));
  return { child, origin };
}
