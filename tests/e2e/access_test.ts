/**
 * The service as `deno task start` runs it, from outside: with no more permissions than it needs, behind keys, and rid of
 * what its clients abandon.
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

import { childrenOf } from "../support/processes.ts";
import { RawHttp, rawRequest } from "../support/raw_http.ts";
import config from "../../deno.json" with { type: "json" };

/** For the service to be ready, on a busy machine. */
const START_MS = 180_000;

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The words of the task, with the program that its shell would ask for. */
function taskWords(): readonly string[] {
  const command = config.tasks.start.command.replace(/\$\(deno eval .*?'\)/, Deno.execPath());
  const [program, ...words] = command.split(" ");
  assert.equal(program, "deno");
  return words;
}

/** What the service prints, until it ends. */
async function collect(stream: ReadableStream<Uint8Array>, into: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) into(decoder.decode(chunk, { stream: true }));
}

async function eventually<T>(
  find: () => Promise<T | undefined> | T | undefined,
  deadlineMs = 30_000,
): Promise<T> {
  for (const end = performance.now() + deadlineMs;;) {
    const found = await find();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`Cannot wait any longer: ${deadlineMs} ms for ${find}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

Deno.test("deno task start serves with the permissions it needs, who has a key, and drops what is abandoned", async (t) => {
  const keys = await Deno.makeTempFile();
  await Deno.writeTextFile(keys, "alice:sk-alice\n");
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...taskWords(),
      "--random",
      "tiny",
      "--port",
      "0",
      "--kv-tokens",
      "8192",
      "--log",
      "json",
      "--api-key-file",
      keys,
    ],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let printed = "";
  const pipes = Promise.all([child.stdout, child.stderr].map((pipe) => collect(pipe, (text) => printed += text)));
  try {
    const port = await eventually(() => {
      const [, digits] = /at http:\/\/127\.0\.0\.1:(\d+)\/v1/.exec(printed) ?? [];
      return digits === undefined ? undefined : Number(digits);
    }, START_MS);
    const url = `http://127.0.0.1:${port}`;
    const authorization = "Bearer sk-alice";
    const queue = async () => (await (await fetch(`${url}/ready`)).json()).queue as { running: number };

    await t.step("neither the router nor its worker may do everything", async () => {
      for (const pid of [child.pid, ...await childrenOf(child.pid)]) {
        const words = (await Deno.readTextFile(`/proc/${pid}/cmdline`)).split("\0");
        assert.ok(words.some((word) => word.startsWith("--allow-net")), `${words}`);
        assert.ok(
          !words.some((word) => /^(-A|--allow-all|--allow-write|--allow-run|--allow-ffi)$/.test(word)),
          `${words}`,
        );
        const writable = words.filter((word) => word.startsWith("--allow-write="));
        if (pid === child.pid) assert.deepEqual(writable, []);
        else {
          assert.ok(writable.every((word) => /^--allow-write=[^,]*\/tidepool-tiles\.json$/.test(word)), `${words}`);
          assert.ok(!words.some((word) => word.startsWith("--allow-run")), `${words}`);
        }
      }
    });

    await t.step("a key is needed, a page and a foreign host are refused, a plain POST is answered", async () => {
      const body = JSON.stringify({ prompt: [1, 2, 3], max_tokens: 2, ignore_eos: true });
      const post = async (headers: Record<string, string>) => {
        const response = await fetch(`${url}/v1/completions`, { method: "POST", body, headers });
        await response.body?.cancel();
        return response.status;
      };
      assert.equal(await post({}), 401);
      assert.equal(await post({ authorization, origin: "https://evil.example" }), 403);
      assert.equal(await post({ authorization }), 200);
      using raw = await RawHttp.open(port);
      const headers = { Host: "evil.example", Connection: "close" };
      await raw.send(rawRequest("GET", "/v1/models", { headers }));
      assert.match(await raw.ended(15_000), /^HTTP\/1.1 403 [^]*host_not_allowed/);
    });

    await t.step("an abandoned request whose body came later is dropped", async () => {
      const body = JSON.stringify({ prompt: Array(150).fill(7), max_tokens: 3900, ignore_eos: true });
      const [head] = rawRequest("POST", "/v1/completions", { headers: { Authorization: authorization }, body }).split(
        "\r\n\r\n",
      );
      const raw = await RawHttp.open(port);
      await raw.send(`${head}\r\n\r\n`);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await raw.send(body);
      await eventually(async () => (await queue()).running === 1 || undefined);
      raw[Symbol.dispose]();
      await eventually(async () => (await queue()).running === 0 || undefined);
    });

    await t.step("every request left one line, none of them a prompt", async () => {
      await (await fetch(`${url}/nowhere`, { headers: { authorization, "x-request-id": "mine-404" } })).body?.cancel();
      const lines = await eventually(() => {
        // The last line may not have come whole.
        const entries = printed.split("\n").slice(0, -1).filter((line) => line.startsWith("{"))
          .map((line) => JSON.parse(line));
        const isAbandoned = entries.some(({ outcome, status }) => /^left while/.test(outcome) && status === 499);
        return isAbandoned && entries.some(({ requestId }) => requestId === "mine-404") ? entries : undefined;
      });
      const of = (status: number) => lines.find((line) => line.status === status && line.path !== "/ready");
      const missing = of(404);
      assert.deepEqual(
        [missing.requestId, missing.client, missing.key, missing.method, missing.path, missing.outcome],
        ["mine-404", "127.0.0.1", "alice", "GET", "(unknown)", "not_found"],
      );
      assert.equal(of(401).outcome, "invalid_api_key");
      assert.equal(of(403).outcome, "origin_not_allowed");
      const { promptTokens, completionTokens, key } = of(200);
      assert.deepEqual([promptTokens, completionTokens, key], [3, 2, "alice"]);
    });

    child.kill("SIGTERM");
    assert.equal((await child.status).code, 0, printed);
  } finally {
    await Deno.remove(keys);
    if (!/Finishing what runs/.test(printed)) child.kill("SIGKILL");
    await pipes;
  }
});
