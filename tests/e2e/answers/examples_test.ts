/** The programs of `examples/` and the requests of the README, run as they are against the embedded model. */

import assert from "node:assert/strict";

import { codeBlocks, inRoot } from "../../docs/pages.ts";
import { serveProcess } from "../../support/serve_process.ts";

const DEADLINE_MS = 300_000;

const ANSWER = /The magic number for harbour is 7391\./;

/** Runs a program in the root of the repository and returns what it prints; it must end with 0. */
async function run(program: string, args: readonly string[], url?: string): Promise<string> {
  const command = new Deno.Command(program, {
    args: [...args],
    cwd: inRoot("."),
    env: { NO_COLOR: "1", ...(url === undefined ? {} : { ["TIDEPOOL_URL"]: url }) },
    stdin: "null",
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  const { code, stdout, stderr } = await command.output();
  const [printed = "", said = ""] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert.equal(code, 0, `${program} ${args.join(" ")}:\n${printed}\n${said}`);
  return printed;
}

const deno = (file: string, url?: string) => run(Deno.execPath(), ["run", "--quiet", "-A", `examples/${file}`], url);

/** The README's first command, without the way to Deno. */
function startCommand(readme: string): readonly string[] {
  const [, words = ""] = /^npx -y deno@\S+ (task start)\s+#/m.exec(readme) ?? [];
  assert.notEqual(words, "");
  return words.split(" ");
}

Deno.test("examples and README against a service that the README's command starts", async (t) => {
  const readme = await Deno.readTextFile(inRoot("README.md"));
  const { child, origin } = await serveProcess(["--kv-tokens", "4096"], startCommand(readme));
  try {
    await askAsShown(t, readme, origin);
  } finally {
    child.kill("SIGTERM");
    assert.equal((await child.status).code, 0);
  }
});

async function askAsShown(t: Deno.TestContext, readme: string, origin: string): Promise<void> {
  await t.step("openai_client.ts prints the answer and how attention read", async () => {
    const printed = await deno("openai_client.ts", origin);
    assert.match(printed, ANSWER);
    assert.match(printed, /rows_read_per_token: \d+/);
  });

  await t.step("stream.sh prints events up to [DONE], whatever the question holds", async () => {
    const printed = await run("sh", ["examples/stream.sh", 'What does "\\n" mean?'], origin);
    assert.ok(printed.split("\n").filter((line) => line.startsWith("data: {")).length >= 3, printed);
    assert.match(printed, /data: \[DONE\]\s*$/);
  });

  await t.step("audit.ts prints how many tokens agree", async () => {
    assert.match(await deno("audit.ts", origin), /sparse, budget 16: \d+ of [1-9]\d* tokens are those of dense/);
  });

  await t.step("ai_sdk_tools.ts calls a tool, sends its result back and answers", async () => {
    const printed = await deno("ai_sdk_tools.ts", origin);
    assert.match(
      printed,
      /^call: log \{"place":"harbour"\}\nresult: "Fog lay .*"\nanswer: The magic number for harbour is 7391/,
    );
  });

  const requests = codeBlocks(readme)
    .filter(({ language, code }) => language === "sh" && code.includes("127.0.0.1:8000/v1"));
  assert.equal(requests.length, 2, "the README asks once with curl and once with the official client");
  for (const [i, { code }] of requests.entries()) {
    await t.step(`request ${i + 1} of the README is answered`, async () => {
      const pasted = code.replaceAll("http://127.0.0.1:8000", origin)
        .replaceAll("npx -y deno@2.9.6", `'${Deno.execPath()}'`);
      // The stream comes a piece a line.
      const printed = (await run("sh", ["-euc", pasted])).replaceAll("\n", "");
      assert.match(printed, ANSWER);
    });
  }
}

Deno.test("embed_service.ts starts a service, asks it and ends it", async () => {
  const printed = await deno("embed_service.ts");
  assert.match(printed, /^tide-10m on .+, contexts up to 4096 tokens\nThe sea.+/);
});

Deno.test("two_workers.ts spreads a request over two slices and shows where it looked", async () => {
  const printed = await deno("two_workers.ts");
  assert.match(printed, /^2048 \+ 1024 tokens: contexts up to 3072\n/);
  assert.match(printed, ANSWER);
  assert.match(printed, /^layer 6 chose 64 of \d+ positions: 0 1 2 3 /m);
});
