/** Many requests on one running service: same answers in any company, decoding beside prefill, counted and not overheard. */

import assert from "node:assert/strict";

import { LiveService } from "../support/live_service.ts";
import { needle } from "../support/needles.ts";

interface Completion {
  readonly choices: readonly {
    readonly text: string;
    readonly logprobs: { readonly tokens: readonly string[]; readonly token_logprobs: readonly number[] };
  }[];
}

/** A text that is in no word list. */
const MARKER = "Quixzellorn-4711";

const SEEDED = {
  prompt: "The old captain said",
  "max_tokens": 24,
  seed: 7,
  temperature: 1,
  "ignore_eos": true,
  logprobs: 2,
};

Deno.test("a running service", async (t) => {
  await using live = await LiveService.start({ kvTokens: 4096, maxBatch: 8 });
  // Some 400 tokens.
  const text = (await needle("n1000-03")).prompt_text.slice(0, 1500);

  await t.step("gives the same tokens for the same seed, alone and with six others in flight", async () => {
    const seeded = async () => (await live.ask<Completion>("/v1/completions", SEEDED)).body.choices;
    const alone = await seeded();
    assert.equal(alone[0]?.logprobs.tokens.length, SEEDED.max_tokens);
    const others = await Promise.all([1, 2, 3, 4, 5, 6].map((i) =>
      live.stream("/v1/completions", {
        prompt: text.slice(0, 60 * i),
        max_tokens: 400,
        seed: i,
        ignore_eos: true,
        attention: { mode: i % 2 === 0 ? "sparse" : "dense", budget: 32 },
      })
    ));
    await live.until(async () => (await live.load()).running === others.length, 60_000);
    const inCompany = await seeded();
    assert.ok((await live.load()).running >= 3, "the others were still there");
    assert.deepEqual(inCompany, alone);
    await Promise.all(others.map((stream) => stream.leave()));
    await live.idle(60_000);
  });

  await t.step("gives the same tokens whether the prompt was read at once, in pieces or before", async () => {
    const long = { ...SEEDED, prompt: text.slice(0, 600), attention: { mode: "sparse", budget: 32 } };
    const salted = async (salt: string) =>
      (await live.ask<Completion>("/v1/completions", { ...long, cache_salt: salt })).body.choices;
    const cold = await salted("cold");
    assert.deepEqual(await salted("cold"), cold);
    const company = await live.stream("/v1/completions", { prompt: "And", max_tokens: 900, ignore_eos: true });
    await company.until(() => company.tokenTimes.length > 0);
    assert.deepEqual(await salted("in company"), cold);
    await company.leave();
  });

  await t.step("goes on decoding for all while another's prompt is prefilled", async () => {
    const decoding = await Promise.all(
      ["I was", "You are", "We go"].map((prompt) =>
        live.stream("/v1/completions", { prompt, max_tokens: 400, ignore_eos: true, attention: { mode: "dense" } })
      ),
    );
    await Promise.all(decoding.map((stream) => stream.until(() => stream.tokenTimes.length >= 3)));
    let endedMs = Infinity;
    const reading = decoding.map((stream) => stream.until(() => (stream.tokenTimes.at(-1) ?? 0) > endedMs));
    const startedMs = performance.now();
    const late = await live.stream("/v1/completions", { prompt: text, max_tokens: 2, cache_salt: "unread" });
    await late.until(() => late.tokenTimes.length > 0);
    endedMs = performance.now();
    assert.deepEqual(await Promise.all(reading), [true, true, true]);
    for (const stream of decoding) {
      const times = stream.tokenTimes.filter((atMs) => atMs > startedMs && atMs < endedMs);
      assert.ok(times.length >= 5, `${times.length} tokens during a prefill of ${endedMs - startedMs} ms`);
      const gaps = times.slice(1).map((atMs, i) => atMs - (times[i] ?? 0));
      assert.ok(Math.max(...gaps) < (endedMs - startedMs) / 2, `a gap of ${Math.max(...gaps)} ms`);
    }
    await late.finish();
    await Promise.all(decoding.map((stream) => stream.leave()));
    await live.idle(30_000);
  });

  await t.step("goes on decoding while another's huge prompt is turned into tokens", async () => {
    const stream = await live.stream("/v1/completions", { prompt: "And", max_tokens: 900, ignore_eos: true });
    await stream.until(() => stream.tokenTimes.length > 0);
    let endedMs = Infinity;
    const reading = stream.until(() => (stream.tokenTimes.at(-1) ?? 0) > endedMs);
    const startedMs = performance.now();
    const content = "The quick brown fox jumps. ".repeat(50_000);
    const messages = [{ role: "user", content }];
    const { body } = await live.ask<{ error: { message: string } }>("/v1/chat/completions", { messages });
    assert.match(body.error.message, /exceed the context of 4096/);
    // A prompt that cannot fit is refused before it is tokenized; this one is tokenized to its end.
    const { status } = await live.ask("/tokenize", { prompt: content });
    endedMs = performance.now();
    assert.equal(status, 200);
    assert.ok(await reading);
    const times = stream.tokenTimes.filter((atMs) => atMs > startedMs && atMs < endedMs);
    const gaps = times.slice(1).map((atMs, i) => atMs - (times[i] ?? 0));
    assert.ok(Math.max(...gaps) < (endedMs - startedMs) / 2, `${Math.max(...gaps)} of ${endedMs - startedMs} ms`);
    await stream.leave();
    await live.idle(30_000);
  });

  await t.step("counts what it did, and repeats nothing of the prompts", async () => {
    const before = await live.metric("tidepool_generation_tokens_total");
    const ended = live.lines.length;
    const messages = [{ role: "user", content: `Remember ${MARKER}` }];
    const answer = await live.ask<{ id: string }>("/v1/chat/completions", {
      messages,
      max_tokens: 5,
      ignore_eos: true,
      cache_salt: MARKER,
      stop: MARKER,
    });
    assert.equal(answer.status, 200);
    for (
      const [path, body] of [
        ["/v1/chat/completions", { messages, temperature: MARKER }],
        ["/v1/chat/completions", { messages: [{ role: MARKER, content: MARKER }] }],
        ["/v1/chat/completions", { messages, tools: [{ name: MARKER }] }],
        ["/v1/completions", `{"prompt": "${MARKER}`],
        ["/v1/completions", { prompt: `${MARKER} `.repeat(3000) }],
        ["/v1/completions", { prompt: "a", model: MARKER }],
        [`/v1/${MARKER}`, {}],
      ] as const
    ) {
      const { status } = await live.ask(path, body);
      assert.ok(status >= 400 && status < 500, `${path} answered ${status}`);
    }
    assert.equal(await live.metric("tidepool_generation_tokens_total") - before, 5);
    const metrics = await live.metrics();
    assert.match(metrics, /^tidepool_request_success_total\{.*finished_reason="length".*\} [1-9]/m);
    assert.match(metrics, /^tidepool_request_failure_total\{.*code="context_length_exceeded".*\} 2$/m);
    assert.match(metrics, /^tidepool_time_to_first_token_seconds_count\{.*operation="chat".*\} 1$/m);
    assert.ok(await live.metric("tidepool_step_seconds_count") > 10);

    const log = live.lines.slice(ended).join("\n");
    assert.match(log, new RegExp(`${answer.body.id} tide-10m 200 length`));
    for (const place of [metrics, log]) assert.ok(!place.includes(MARKER.slice(0, 6)), "the marker leaked");
  });

  await t.step("texts begin with the model's first token; token ids and messages are taken as they are", async () => {
    const tokens = async (fields: object) => (await live.ask<{ tokens: number[] }>("/tokenize", fields)).body.tokens;
    const whole = await tokens({ prompt: "It was" });
    assert.deepEqual(whole, [0, ...await tokens({ prompt: "It was", add_special_tokens: false })]);
    const answers = await Promise.all(
      ["It was", whole, whole.slice(1)].map((prompt) =>
        live.ask<Completion>("/v1/completions", { prompt, max_tokens: 6, temperature: 0, logprobs: 1 })
      ),
    );
    const [text, ids, bare] = answers.map(({ body }) => body.choices[0]);
    assert.deepEqual(text, ids);
    assert.notDeepEqual(bare?.logprobs, ids?.logprobs);
    assert.equal(
      (await tokens({ messages: [{ role: "user", content: "Hi" }] })).filter((token) => token === 0).length,
      1,
    );
  });

  await t.step("reports what is free, and holds nothing when all is over", async () => {
    await live.idle(30_000);
    const body = await (await fetch(`${live.origin}/ready`)).json();
    assert.deepEqual([body.status, body.queue], ["ready", { running: 0, waiting: 0 }]);
    // The prefix cache holds pages of what was asked before, and gives them away.
    assert.deepEqual([body.capacity_tokens, body.free_tokens], [4096, 4096]);
  });
});
