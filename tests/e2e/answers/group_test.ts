/** One request over several workers: contexts that no worker holds alone, the same answers, and workers that die. */

import assert from "node:assert/strict";

import { PAGE_TOKENS } from "../../../engine/span.ts";
import type { ServiceConfig } from "../../../router/config.ts";
import { Cli } from "../../support/cli.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { LiveService } from "../../support/live_service.ts";
import { withFiles } from "../../support/model_directory.ts";
import { aboutText, needle } from "../../support/needles.ts";
import type { UsageBody } from "../../support/sse_reader.ts";

interface Chat {
  readonly choices: readonly { readonly message: { readonly content: string } }[];
  readonly usage: UsageBody;
}

interface Completion {
  readonly choices: readonly {
    readonly logprobs: {
      readonly tokens: readonly string[];
      readonly "top_logprobs": readonly Readonly<Record<string, number>>[];
    };
  }[];
}

/** An answer token by token, with how far the best token was ahead of the second. */
type Answer = readonly { readonly token: string; readonly margin: number }[];

/** A slice that holds half of a question and its text. */
const SLICE = 192;

/** By the length of the prompt. */
interface Answers {
  readonly dense: ReadonlyMap<number, Answer>;
  readonly sparse: ReadonlyMap<number, Answer>;
}

const DENSE = { attention: { mode: "dense" } };
const SPARSE = { attention: { mode: "sparse", budget: 64 } };

/** Tokens of prompts: of one that is longer than a slice, and of short ones. */
const SHORT = [170, 185, 255] as const;
const LENGTHS = [920, ...SHORT] as const;

/** What answers are compared on: the embedded model takes five times as long as random weights of the smallest shape. */
const COMPARED: ServiceConfig = gateCases({ random: "tiny" }, {});

/** An answer of this length, whatever it says: long enough to be broken in its middle. */
const WHOLE = { "max_tokens": gateCases(60, 16), "ignore_eos": true } as const;

/** For a process to start and load, on a busy machine. */
const RECOVERED_MS = 180_000;

const SECRETS = { secret: "a secret of many characters\n", other: "some other secret, as long\n" };

/** Below it, another order of additions may well choose the other token. */
const TIE_MARGIN = 0.02;

function promptOf(length: number): number[] {
  return Array.from({ length }, (_, i) => 10 + (7 * i + (i >> 3) * 31 + length) % 480);
}

/** Dense and sparsely, one after the other, so that a prompt is read once. */
async function answersOf(live: LiveService, lengths: readonly number[] = LENGTHS): Promise<Answers> {
  const answers = { dense: new Map<number, Answer>(), sparse: new Map<number, Answer>() };
  for (const length of lengths) {
    answers.dense.set(length, await answerOf(live, length, DENSE));
    answers.sparse.set(length, await answerOf(live, length, SPARSE));
  }
  return answers;
}

async function answerOf(live: LiveService, length: number, fields: object): Promise<Answer> {
  const { status, body } = await live.ask<Completion>("/v1/completions", {
    prompt: promptOf(length),
    max_tokens: 10,
    ignore_eos: true,
    temperature: 0,
    logprobs: 2,
    ...fields,
  });
  assert.equal(status, 200, JSON.stringify(body));
  const { tokens = [], top_logprobs: tops = [] } = body.choices[0]?.logprobs ?? {};
  return tokens.map((token, i) => {
    const [first = 0, second = -Infinity] = Object.values(tops[i] ?? {}).sort((a, b) => b - a);
    return { token, margin: first - second };
  });
}

/** They may part only where the first was as good as undecided. */
function assertSameAnswers(expected: Answers, actual: Answers): void {
  for (const mode of ["dense", "sparse"] as const) {
    for (const [length, theirs] of actual[mode]) {
      const ours = expected[mode].get(length) ?? assert.fail(`${length} tokens were not asked`);
      const parting = ours.findIndex(({ token }, at) => theirs[at]?.token !== token);
      if (parting < 0) assert.equal(theirs.length, ours.length, `${mode}, ${length} tokens: one goes on`);
      else {assert.ok(
          (ours[parting]?.margin ?? Infinity) < TIE_MARGIN,
          `${mode}, ${length} tokens: another token at ${parting}`,
        );}
    }
  }
}

let asked: Promise<Answers> | undefined;

/** What one worker answers; asked once. */
function answersOfOne(): Promise<Answers> {
  return asked ??= (async () => {
    await using live = await LiveService.start({ ...COMPARED, kvTokens: 2048 });
    return await answersOf(live);
  })();
}

async function contextOf(live: LiveService): Promise<{ readonly listed: number; readonly ready: number }> {
  const models = await (await fetch(`${live.origin}/v1/models`)).json();
  const ready = await (await fetch(`${live.origin}/ready`)).json();
  return { listed: models.data[0].max_model_len, ready: ready.max_context_tokens };
}

Deno.test("workers answer together what none could hold", async (t) => {
  await using live = await LiveService.start({ workers: 2, kvTokens: SLICE });
  const { prompt_text: text, question, answer, tokens } = await needle("n300-06");
  const ask = (fields: object) =>
    live.ask<Chat>("/v1/chat/completions", {
      messages: aboutText(text, question),
      max_tokens: 60,
      temperature: 0,
      ...fields,
    });

  await t.step("a text longer than a worker's slice, dense and sparsely, and found again in the cache", async () => {
    assert.deepEqual(live.model.workers.map(({ kvTokens }) => kvTokens), [SLICE, SLICE]);
    assert.ok(tokens > SLICE);
    const dense = await ask(DENSE);
    assert.equal(dense.body.choices[0]?.message.content, answer);
    assert.equal(dense.body.usage.prompt_tokens_details.cached_tokens, 0);
    const sparse = await ask(SPARSE);
    assert.equal(sparse.body.choices[0]?.message.content, answer);
    const { attention, prompt_tokens_details: { cached_tokens: cached } } = sparse.body.usage;
    assert.ok(cached >= tokens - PAGE_TOKENS, `${cached} of ${tokens} tokens cached`);
    assert.deepEqual([attention.mode, attention.budget], ["sparse", 64]);
  });

  await t.step("an adaptive budget is chosen by all together, and what it read is reported", async () => {
    const coverage = { mode: "sparse", budget: "auto", "max_budget": 200, correction: "off" };
    const [little, more] = [
      await ask({ attention: { ...coverage, coverage: 0.5 } }),
      await ask({ attention: { ...coverage, coverage: 0.98 } }),
    ];
    for (const { body } of [little, more]) assert.equal(body.choices[0]?.message.content, answer);
    const { attention } = more.body.usage;
    assert.deepEqual([attention.mode, attention.budget, attention.coverage], ["sparse", "auto", 0.98]);
    const read = [little, more].map(({ body }) => body.usage.attention.rows_read_per_token);
    const [layers, sparse] = [12, 8];
    const [least, most] = [80, 200].map((size) => (layers - sparse) * tokens + sparse * size);
    assert.ok((read[0] ?? 0) > (least ?? 0) && (read[0] ?? 0) < (read[1] ?? 0), `${read} rows, at least ${least}`);
    assert.ok((read[1] ?? 0) < (most ?? 0), `${read} rows, at most ${most}`);
  });

  await t.step("the longest context is the group's, and one beyond it is refused with both numbers", async () => {
    assert.deepEqual(await contextOf(live), { listed: 2 * SLICE, ready: 2 * SLICE });
    assert.equal(live.model.contextTokens, 2 * SLICE);
    const { status, body } = await live.ask<{ error: { code: string; message: string } }>("/v1/completions", {
      prompt: new Array(2 * SLICE + 1).fill(5),
      max_tokens: 1,
    });
    assert.deepEqual([status, body.error.code], [400, "context_length_exceeded"]);
    assert.match(body.error.message, /\b385\b.*\b384\b/);
  });

  await live.idle(30_000);
});

Deno.test("two workers answer as one does, also when one of them is killed", async (t) => {
  const alone = await answersOfOne();
  await using live = await LiveService.start({ ...COMPARED, workers: 2, kvTokens: 640 });

  await t.step("the same answers as one worker, dense and sparsely", async () => {
    assertSameAnswers(alone, await answersOf(live));
  });

  await t.step("the same stream to its end when a worker is killed in the middle of it", async () => {
    // Rebuilding costs as much as reading: a short prompt shows the same.
    const request = { prompt: promptOf(SHORT[0]), temperature: 0, ...DENSE, ...WHOLE };
    const whole = await (await live.stream("/v1/completions", request)).finish();
    for (const [deaths, index] of [1, 0].entries()) {
      // Looked up before: meanwhile the stream would go on.
      const worker = (await live.workers())[index] ?? assert.fail(`there is no worker ${index}`);
      const stream = await live.stream("/v1/completions", request);
      await stream.until(() => stream.tokenTimes.length >= 5);
      Deno.kill(worker, "SIGKILL");
      await stream.finish();
      assert.ok(stream.done && stream.error === undefined, JSON.stringify(stream.error));
      assert.deepEqual([stream.text(), stream.finishReason], [whole.text(), "length"]);
      await live.until(async () => await live.metric("tidepool_group_epoch") >= deaths + 2, RECOVERED_MS);
      await live.ready(RECOVERED_MS);
      assert.deepEqual(await contextOf(live), { listed: 1280, ready: 1280 });
    }
    const { epoch } = await (await fetch(`${live.origin}/ready`)).json();
    assert.ok(epoch >= 3, `epoch ${epoch} after two deaths`);
    assert.equal((await live.workers()).length, 2);
    await live.idle(30_000);
  });
});

Deno.test("three workers of different capacities give the answers of one", async () => {
  const alone = await answersOfOne();
  // Less than the shortest prompt each, so that every one is on all three.
  await using live = await LiveService.start({ ...COMPARED, workers: 3, kvTokens: [256, 128, 192] });
  assert.equal(live.model.kvTokens, 576);
  const longest = live.model.contextTokens;
  assert.deepEqual(await contextOf(live), { listed: longest, ready: longest });
  assert.ok(longest > 448 && longest <= 576, `the longest context is ${longest}`);
  assertSameAnswers(alone, await answersOf(live, SHORT));
});

Deno.test("workers that were started elsewhere are joined with the secret of a file, and only with it", async () => {
  await withFiles(SECRETS, async (directory) => {
    const listen = ["worker", "--listen", "127.0.0.1:0", "--secret-file", `${directory}/secret`];
    await using first = new Cli(listen);
    await using second = new Cli(listen);
    const join = await Promise.all([first, second].map(async (worker) => {
      const [, address = ""] = await worker.printed(/listens on (127\.0\.0\.1:\d+)\n/);
      return address;
    }));
    const serve = ["serve", "--port", "0", "--random", "tiny", "--kv-tokens", "640", "--join", join.join(",")];
    await using stranger = new Cli([...serve, "--secret-file", `${directory}/other`]);
    await stranger.printed(/Worker [01] is lost: Cannot shake hands: the listener holds another secret\n/);
    stranger.kill("SIGKILL");

    await using router = new Cli([...serve, "--secret-file", `${directory}/secret`]);
    const [, origin = ""] = await router.printed(/serves tiny at (http:\S+)\/v1\n/);
    await router.printed(new RegExp(`worker 1 .*${join[1]}, 640 KV tokens\n`));
    const response = await fetch(`${origin}/v1/completions`, {
      method: "POST",
      body: JSON.stringify({ prompt: new Array(1000).fill(5), max_tokens: 8, ignore_eos: true }),
    });
    assert.equal((await response.json()).usage?.completion_tokens, 8);
    router.kill("SIGTERM");
    assert.equal((await router.end).code, 0);
    // A worker serves one router; it is started again from outside.
    for (const worker of [first, second]) assert.equal((await worker.end).code, 0);
  });
});
