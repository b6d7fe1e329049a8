/** `chat` as a process, against a server that says what the test wants. */

import assert from "node:assert/strict";
import { Cli, runCli } from "../support/cli.ts";
import { withFiles } from "../support/model_directory.ts";

/** Frames of an answer: text in pieces (one with an escape sequence), cut where TCP might cut, then usage. */
const ANSWER = [
  ": keep-alive\n\n",
  ': prefill {"total":100,"cached":50,"processed":100}\n\n',
  'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\ndata: {"choices":[{"index":0,"del',
  'ta":{"content":"Grüß"}}]}\r\n\r\n',
  'data: {"choices":[{"index":0,"delta":{"content":" di\\u001b[2Jch"}}]}\n\n',
  'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
  'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":50},' +
  '"attention":{"mode":"sparse","budget":64,"context":103,"audit":{"checked":8,"agreed":7}}}}\n\n',
  "data: [DONE]\n\n",
];

interface Fake {
  readonly url: string;
  /** Bodies of the questions asked. */
  readonly asked: Record<string, unknown>[];
  /** Resolves when a client leaves an answer. */
  readonly left: Promise<void>;
}

/** Serves a model `m`; each question gets the next of the answers. */
async function withServer(
  answers: readonly (readonly string[] | "endless" | Response)[],
  body: (fake: Fake) => Promise<void>,
): Promise<void> {
  const left = Promise.withResolvers<void>();
  const asked: Record<string, unknown>[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    if (request.url.endsWith("/v1/models")) return Response.json({ data: [{ id: "m" }] });
    const answer = answers[asked.length] ?? [];
    asked.push(await request.json());
    return answer instanceof Response ? answer : new Response(framesOf(answer, left.resolve));
  });
  try {
    await body({ url: `http://127.0.0.1:${server.addr.port}/v1`, asked, left: left.promise });
  } finally {
    await server.shutdown();
  }
}

/** @param paused what the second half waits for */
function framesOf(
  answer: readonly string[] | "endless",
  onLeave: () => void,
  paused?: Promise<void>,
): ReadableStream<Uint8Array> {
  const frames = answer === "endless" ? [...ANSWER.slice(0, 5)] : [...answer];
  return new ReadableStream<string>({
    async pull(controller) {
      if (frames.length === answer.length / 2) await paused;
      const frame = frames.shift();
      if (frame !== undefined) controller.enqueue(frame);
      else if (answer === "endless") await new Promise(() => {});
      else controller.close();
    },
    cancel: onLeave,
  }).pipeThrough(new TextEncoderStream());
}

Deno.test("chat streams an answer, prints what it cost and sends the conversation along", async () => {
  await withServer([ANSWER, ANSWER], async ({ url, asked }) => {
    await withFiles({ "text.txt": "A long text" }, async (directory) => {
      const args = ["chat", "--url", url, "--system", "Be brief", "--file", `${directory}/text.txt`, "--budget", "64"];
      args.push("--correction", "audit");
      const { code, stdout, stderr } = await runCli(args, { stdin: "Who?\n\nWhere?\n" });
      assert.equal(code, 0, stderr);
      const line =
        /^Grüß di\[2Jch\n\[3 tokens, [\d.]+ tokens\/s, 50 of 100 prompt tokens cached, sparse: 64 of 103 positions, 7 of 8 checked tokens agree with dense\]$/gm;
      assert.equal(stdout.match(line)?.length, 2, stdout);
    });
    assert.deepEqual(asked[0]?.attention, { budget: 64, correction: "audit" });
    assert.deepEqual(asked[1]?.messages, [
      { role: "system", content: "Be brief" },
      { role: "user", content: "A long text" },
      { role: "user", content: "Who?" },
      { role: "assistant", content: "Grüß di\x1b[2Jch" },
      { role: "user", content: "Where?" },
    ]);
  });
});

Deno.test("chat shows refusals, failures and broken streams, and goes on", async () => {
  const refusal = Response.json({ error: { message: "the queue is full" } }, { status: 429 });
  const failure = [...ANSWER.slice(0, 4), 'data: {"error":{"message":"a worker was lost"}}\n\n'];
  await withServer([refusal, failure, ANSWER.slice(0, 4), ANSWER], async ({ url, asked }) => {
    const { code, stdout, stderr } = await runCli(["chat", "--url", url], { stdin: "1\n2\n3\n4\n" });
    assert.equal(code, 0);
    const errors = stderr.split("\n").filter((line) => line.startsWith("Cannot"));
    assert.deepEqual(errors, [
      `Cannot chat with ${url}: 429 the queue is full`,
      "Cannot finish the answer: a worker was lost",
      "Cannot finish the answer: the server closed the stream",
    ]);
    assert.match(stdout, /Grüß di\[2Jch\n\[3 tokens/);
    // The refused question is not asked again with the next one; what came of a broken answer counts.
    const contents = (asked[3]?.messages as { content: string }[]).map(({ content }) => content);
    assert.deepEqual(contents, ["2", "Grüß", "3", "Grüß", "4"]);
  });
});

Deno.test("chat takes commands, messages of several lines, and an address without /v1", async () => {
  await withServer([ANSWER, ANSWER], async ({ url, asked }) => {
    await withFiles({ "text.txt": "A long text" }, async (directory) => {
      const lines = ["/system Be brief", `/load ${directory}/text.txt`, "/load /nonexistent", '"""Who?', 'Where?"""'];
      lines.push("/stats", "/nonsense", "//usr is a \\", "path", "/exit", "never asked");
      const stdin = lines.join("\n");
      const { code, stdout, stderr } = await runCli(["chat", "--url", url.replace(/\/v1$/, "/")], { stdin });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^System: Be brief\n.*text\.txt: 11 characters\n/);
      assert.match(stdout, /\n1 answer: 3 tokens, [\d.]+ tokens\/s, 50 of 100 prompt tokens cached\n/);
      const errors = stderr.split("\n").filter((line) => line.startsWith("Cannot"));
      assert.match(errors[0] ?? "", /^Cannot read the file: /);
      assert.equal(errors[1], "Cannot do /nonsense: /help lists the commands");
    });
    assert.equal(asked.length, 2);
    const contents = (asked[1]?.messages as { content: string }[]).map(({ content }) => content);
    assert.deepEqual(contents, ["Be brief", "A long text", "Who?\nWhere?", "Grüß di\x1b[2Jch", "/usr is a \npath"]);
  });
});

Deno.test("chat on a terminal: keys typed during an answer wait for the prompt, pastes keep their lines", async () => {
  const paused = Promise.withResolvers<void>();
  const slow = new Response(framesOf(ANSWER, () => {}, paused.promise));
  await withServer([slow, ANSWER, "endless"], async ({ url, asked }) => {
    await using cli = new Cli(["chat", "--url", url], { terminal: true });
    await cli.printed(/> /);
    await cli.type("First\r");
    await cli.printed(/Grüß/);
    await cli.type("typed too ear");
    paused.resolve();
    await cli.printed(/\[3 tokens[^\]]*\]/);
    await cli.type("ly\r");
    await cli.printed(/\[3 tokens[^]*\[3 tokens[^\]]*\]/);
    await cli.type("\x1b[200~two\nlines\x1b[201~\r");
    await cli.printed(/two↵lines[^]*Grüß di/);
    await cli.type("\x03");
    await cli.printed(/\[stopped\][^]*> /);
    await cli.type("\x04");
    const { code, stdout } = await cli.end;
    assert.equal(code, 0);
    // The answer is whole, whatever was typed while it came.
    assert.ok(stdout.includes("Grüß di[2Jch\r\n[3 tokens"), stdout);
    const last = (body: Record<string, unknown> | undefined) =>
      (body?.messages as { content: string }[]).at(-1)?.content;
    assert.deepEqual(asked.map(last), ["First", "typed too early", "two\nlines"]);
  });
});

Deno.test("chat ends an answer on Ctrl-C, and the server notices", async () => {
  await withServer(["endless"], async ({ url, left }) => {
    await using cli = new Cli(["chat", "--url", url], { stdin: "Go on\n" });
    await cli.printed(/Grüß di/);
    cli.kill("SIGINT");
    const { code, stdout } = await cli.end;
    assert.equal(code, 0);
    assert.match(stdout, /\[stopped\]/);
    await left;
  });
});

Deno.test("chat ends with 1 when no server answers, and with 2 when the file is not there", async () => {
  const alone = await runCli(["chat", "--url", "http://127.0.0.1:1/v1"], { stdin: "" });
  assert.equal(alone.code, 1);
  assert.equal(alone.stderr, "Cannot reach http://127.0.0.1:1/v1: is the server running? (deno task start)\n");
  const missing = await runCli(["chat", "--file", "/nonexistent"], { stdin: "" });
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /^Cannot read --file: .*\n$/);
});
