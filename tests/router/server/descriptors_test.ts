/** A server with fewer file descriptors than it gets connections. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const SERVER = fileURLToPath(new URL("../../support/limited_server.ts", import.meta.url));

const DESCRIPTORS = 256;
const CONNECTIONS = 400;

/** For one try to be answered, and for all of them, on a busy machine. */
const ANSWER_MS = 10_000;
const ALL_MS = 60_000;

async function health(port: number): Promise<number | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(ANSWER_MS) });
    await response.body?.cancel();
    return response.status;
  } catch (error) {
    if (error instanceof Error) return undefined;
    throw error;
  }
}

Deno.test("more silent connections than descriptors leave the server alive, and answering when they have gone", async () => {
  const child = new Deno.Command("sh", {
    args: ["-c", `ulimit -n ${DESCRIPTORS} && exec "$0" run --quiet -A "$1"`, Deno.execPath(), SERVER],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = child.stdout.getReader();
  try {
    const port = Number(new TextDecoder().decode((await output.read()).value));
    assert.equal(await health(port), 200);
    const silent: Deno.TcpConn[] = [];
    for (let i = 0; i < CONNECTIONS; i++) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port, signal: AbortSignal.timeout(500) }).catch(() =>
        undefined
      );
      if (conn === undefined) break;
      silent.push(conn);
    }
    for (const conn of silent) conn.close();
    const end = performance.now() + ALL_MS;
    while (await health(port) !== 200) {
      assert.ok(performance.now() < end, `no answer ${ALL_MS} ms after ${silent.length} connections were closed`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await output.cancel();
  }
});
