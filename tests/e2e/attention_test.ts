/** What the service is for: a question about a long text, answered dense and sparsely, streamed, and asked again. */

import assert from "node:assert/strict";

import { LiveService } from "../support/live_service.ts";
import { aboutText, needle } from "../support/needles.ts";
import type { UsageBody } from "../support/sse_reader.ts";

/** Layers of the embedded model. */
const LAYERS = 12;

interface Chat {
  readonly choices: readonly { readonly message: { readonly content: string }; readonly finish_reason: string }[];
  readonly usage: UsageBody;
}

Deno.test("a question about a long text is answered, dense and sparsely, and faster the second time", async (t) => {
  await using live = await LiveService.start({ kvTokens: 4096 });
  // Eleven facts in one text: there is another one to ask for.
  const { prompt_text: text, question, answer, tokens } = await needle("n1000-05");
  const chat = { messages: aboutText(text, question), "max_tokens": 60, temperature: 0 };
  const ask = async (fields: Readonly<Record<string, unknown>>) => {
    const startedMs = performance.now();
    const stream = await live.stream("/v1/chat/completions", {
      ...chat,
      ...fields,
      stream_options: { include_usage: true },
    });
    await stream.until(() => stream.events.length > 0);
    const firstEventMs = performance.now() - startedMs;
    await stream.finish();
    assert.ok(stream.done && stream.error === undefined);
    const usage = stream.usage ?? assert.fail("no usage");
    const cached = usage.prompt_tokens_details.cached_tokens;
    return { stream, usage, cached, firstEventMs, firstTokenMs: (stream.tokenTimes[0] ?? Infinity) - startedMs };
  };
  let readingMs = 0;

  await t.step("streamed: alive at once, progress while the text is read, then the answer", async () => {
    const { stream, usage, cached, firstEventMs, firstTokenMs } = await ask({ attention: { mode: "dense" } });
    readingMs = firstTokenMs;
    assert.ok(
      firstEventMs < firstTokenMs / 2,
      `something after ${firstEventMs} ms, the first token at ${firstTokenMs}`,
    );
    assert.deepEqual([stream.text(), stream.finishReason], [answer, "stop"]);
    assert.equal(stream.comments[0], "keep-alive");
    const progress = stream.comments.filter((comment) => comment.startsWith("prefill"))
      .map((comment) => JSON.parse(comment.slice("prefill ".length)));
    assert.ok(progress.length >= 2, `progress was told ${progress.length} times`);
    assert.deepEqual(progress.map(({ total, cached }) => [total, cached]), progress.map(() => [tokens, 0]));
    const processed = progress.map((report) => report.processed);
    assert.deepEqual(processed, [...new Set(processed)].sort((a, b) => a - b), "it only grows");
    assert.equal(processed.at(-1), tokens);

    assert.deepEqual([usage.prompt_tokens, cached], [tokens, 0]);
    const context = usage.total_tokens - 1;
    const { attention } = usage;
    assert.deepEqual([attention.mode, attention.budget, attention.context], ["dense", null, context]);
    // Each decoded token reads all that stands before it, and itself.
    assert.equal(attention.rows_read_per_token, LAYERS * (tokens + context + 1) / 2);
  });

  await t.step("sparsely: the same answer from a fraction of the rows, the text not read again", async () => {
    const { stream, usage: { attention }, cached, firstTokenMs } = await ask({
      // Corrections read everything, and the first ones are made to see what they take.
      attention: { mode: "sparse", budget: 64, correction: "off" },
    });
    assert.equal(stream.text(), answer);
    assert.ok(cached >= tokens - 64, `${cached} of ${tokens} tokens cached`);
    assert.deepEqual([attention.mode, attention.budget, attention.select_layers], ["sparse", 64, [2, 6]]);
    const dense = LAYERS * attention.context;
    assert.ok(attention.rows_read_per_token < 0.4 * dense, `${attention.rows_read_per_token} of ${dense} rows`);
    assert.ok(firstTokenMs < readingMs / 2, `${firstTokenMs} ms, reading the text took ${readingMs}`);
  });

  await t.step("another question about the same text finds the text in the cache", async () => {
    const [, word = ""] = /One of the special magic numbers for ([\w-]+) is: \d+/.exec(text) ?? [];
    const { cached, firstTokenMs } = await ask({
      messages: aboutText(text, `What is the special magic number for ${word}?`),
    });
    const asked = await live.ask<{ count: number }>("/tokenize", { messages: aboutText(text, "").slice(0, 1) });
    assert.ok(cached >= asked.body.count - 64, `${cached} of ${asked.body.count} tokens cached`);
    assert.ok(firstTokenMs < readingMs / 2, `${firstTokenMs} ms, reading the text took ${readingMs}`);
  });

  await t.step("auto is dense below the calibrated context; a salt of one's own shares nothing", async () => {
    const short = { messages: [{ role: "user", content: "The sea was calm. ".repeat(20) }], "max_tokens": 2 };
    const of = async (fields: object) => (await live.ask<Chat>("/v1/chat/completions", { ...short, ...fields })).body;
    const { usage } = await of({});
    assert.equal(usage.attention.mode, "dense");
    const cached = async (fields: object) => (await of(fields)).usage.prompt_tokens_details.cached_tokens;
    assert.ok(await cached({}) >= 64, `of ${usage.prompt_tokens} tokens`);
    assert.equal(await cached({ cache_salt: "mine" }), 0);
  });

  await t.step(
    "a budget of the whole context gives the dense answer; smaller sets of every shape are used",
    async () => {
      await assertEveryShape(live);
    },
  );

  await t.step(
    "the budget auto reads more the more it must cover, reports how much, and finds the needle",
    async () => {
      await assertAdaptive(live);
    },
  );

  await live.idle(60_000);
});

async function assertEveryShape(live: LiveService): Promise<void> {
  const { prompt_text: text, question } = await needle("n300-06");
  const ask = async (attention: object) => {
    const { body } = await live.ask<Chat>("/v1/chat/completions", {
      messages: aboutText(text, question),
      attention,
      temperature: 1,
      seed: 5,
      max_tokens: 10,
      ignore_eos: true,
      logprobs: true,
      top_logprobs: 3,
    });
    return body;
  };
  const dense = await ask({ mode: "dense" });
  assert.deepEqual((await ask({ mode: "sparse", budget: 1024 })).choices, dense.choices);
  for (const heads of ["kv_head", "query_head", "all_heads"]) {
    const { choices, usage } = await ask({ mode: "sparse", budget: 32, heads });
    assert.deepEqual([usage.attention.mode, usage.attention.budget], ["sparse", 32]);
    assert.notDeepEqual(choices, dense.choices, `${heads}: so few positions must change something`);
  }
}

async function assertAdaptive(live: LiveService): Promise<void> {
  const { prompt_text: text, question, answer } = await needle("n300-06");
  const ask = async (attention: object) => {
    const { body } = await live.ask<Chat>("/v1/chat/completions", {
      messages: aboutText(text, question),
      attention: { mode: "sparse", correction: "off", ...attention },
      temperature: 0,
      max_tokens: 60,
    });
    return { content: body.choices[0]?.message.content, attention: body.usage.attention };
  };
  const fixed = await ask({ budget: 256 });
  const read = [];
  for (const coverage of [0.9, 0.98, 1]) {
    const { content, attention } = await ask({ budget: "auto", coverage });
    assert.equal(content, answer);
    assert.deepEqual([attention.budget, attention.coverage], ["auto", coverage]);
    read.push(attention.rows_read_per_token);
  }
  assert.deepEqual(read, [...new Set(read)].sort((a, b) => a - b), "more for more");
  assert.ok((read[1] ?? 0) < fixed.attention.rows_read_per_token, `${read} rows, fixed ${fixed.attention}`);
  const capped = await ask({ budget: "auto", coverage: 1, max_budget: 64 });
  const four = await ask({ budget: 64 });
  assert.equal(capped.attention.rows_read_per_token, four.attention.rows_read_per_token, "all of the cap");
}
