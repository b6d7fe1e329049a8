/** How a service begins, fills up and ends: unready, full, draining, closed; and what clients see of it. */

import assert from "node:assert/strict";

import { startService } from "../../router/start_service.ts";
import { LiveService } from "../support/live_service.ts";
import { childrenOf, isRunning } from "../support/processes.ts";

const SMALL = { random: "tiny", kvTokens: 4096 } as const;

const LONG = { prompt: [10, 20, 30], "max_tokens": 200, "ignore_eos": true };

Deno.test("a service answers while it loads, and says that it is not ready", async () => {
  const fractions: number[] = [];
  const service = await startService({ port: 0, kvTokens: 512 }, {
    onProgress: (fraction) => fractions.push(fraction),
  });
  try {
    const origin = `http://127.0.0.1:${service.address.port}`;
    const [health, ready, models] = await Promise.all(
      ["health", "ready", "v1/models"].map((path) => fetch(`${origin}/${path}`)),
    );
    assert.deepEqual([health?.status, ready?.status, models?.status], [200, 503, 200]);
    await Promise.all([health, ready, models].map((response) => response?.body?.cancel()));
    const early = await fetch(`${origin}/v1/completions`, { method: "POST", body: JSON.stringify(LONG) });
    assert.equal(early.status, 503);
    assert.match(await early.text(), /"code":"loading"/);
    assert.equal((await service.ready).id, "tide-10m");
    assert.ok(fractions.length >= 2 && fractions.at(-1) === 1, `progress ${fractions}`);
    assert.deepEqual(fractions, fractions.toSorted((a, b) => a - b));
  } finally {
    await service.close();
  }
});

Deno.test("closing a service that still loads leaves no one waiting", async () => {
  const service = await startService({ ...SMALL, port: 0 });
  const ready = service.ready;
  await Promise.all([service.close(), assert.rejects(ready, { code: "draining" })]);
  assert.deepEqual((await childrenOf(Deno.pid)).filter(isRunning), []);
});

Deno.test("a full queue refuses with 429 and when to come again; requests that wait are served", async () => {
  await using live = await LiveService.start({ ...SMALL, maxBatch: 1, maxQueued: 1 });
  const running = await live.stream("/v1/completions", { ...LONG, max_tokens: 4000 });
  await running.until(() => running.tokenTimes.length > 0);
  const waiting = await live.stream("/v1/completions", { ...LONG, max_tokens: 2 });
  await live.until(async () => (await live.load()).waiting === 1, 30_000);
  for (const stream of [true, false]) {
    const refused = await live.ask<{ error: { code: string; type: string } }>("/v1/completions", { ...LONG, stream });
    assert.deepEqual([refused.status, refused.body.error.code], [429, "queue_full"]);
    assert.equal(refused.body.error.type, "rate_limit_error");
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
  }
  // Until here it runs, however long that took.
  await running.leave();
  await waiting.finish();
  assert.equal(waiting.finishReason, "length");
  assert.equal((await live.ask("/v1/completions", { ...LONG, max_tokens: 2 })).status, 200);
});

Deno.test("draining finishes what runs, takes nothing new, and leaves nothing behind", async () => {
  const live = await LiveService.start({ ...SMALL, drainMs: 180_000 });
  const stream = await live.stream("/v1/completions", { ...LONG, max_tokens: 600 });
  await stream.until(() => stream.tokenTimes.length > 0);
  const whole = live.ask<{ usage: { completion_tokens: number } }>("/v1/completions", LONG);
  await live.until(async () => (await live.load()).running === 2, 30_000);
  const drained = live.service.drain();
  // A closed door, or a word through a connection that is still open.
  const late = await live.post("/v1/completions", LONG).catch(() => undefined);
  if (late !== undefined) {
    assert.equal(late.status, 503);
    assert.match(await late.text(), /"code":"draining"/);
  }
  await stream.finish();
  assert.deepEqual([stream.done, stream.finishReason, stream.tokenTimes.length > 0], [true, "length", true]);
  assert.equal((await whole).body.usage.completion_tokens, LONG.max_tokens);
  await drained;
  assert.deepEqual((await childrenOf(Deno.pid)).filter(isRunning), []);
  await assert.rejects(live.post("/v1/completions", LONG), "it no longer listens");
});

Deno.test("draining for too long, and closing, end what runs with an error event", async () => {
  for (const end of ["drain", "close"] as const) {
    const live = await LiveService.start({ ...SMALL, drainMs: 100 });
    const stream = await live.stream("/v1/completions", { ...LONG, max_tokens: 4000 });
    await stream.until(() => stream.tokenTimes.length > 0);
    const ended = live.service[end]();
    await stream.finish();
    assert.deepEqual([stream.done, stream.error?.code], [false, "draining"], end);
    await ended;
    assert.deepEqual((await childrenOf(Deno.pid)).filter(isRunning), []);
  }
});

Deno.test("more requests than pages: some wait or are sent back, all are answered in full", async () => {
  // Room for two of the six at a time.
  await using live = await LiveService.start({ ...SMALL, kvTokens: 384 });
  // Random weights never end an answer by themselves: this token ends those of the embedded model, whose tokenizer they borrow.
  const { body } = await live.ask<{ choices: { finish_reason: string }[] }>("/v1/completions", {
    prompt: [10],
    max_tokens: 3,
    logit_bias: { "1": 100 },
  });
  assert.equal(body.choices[0]?.finish_reason, "length");
  const answers = await Promise.all(
    [1, 2, 3, 4, 5, 6].map((seed) =>
      live.ask<{ choices: { text: string }[]; usage: { completion_tokens: number } }>("/v1/completions", {
        prompt: Array.from({ length: 60 }, (_, i) => 10 + seed * 7 + i),
        max_tokens: 110,
        ignore_eos: true,
        attention: { mode: "dense" },
        seed,
      })
    ),
  );
  assert.deepEqual(
    answers.map(({ status, body }) => [status, body.usage.completion_tokens]),
    Array(6).fill([200, 110]),
  );
  assert.ok(
    await live.metric("tidepool_num_preemptions_total") > 0,
    "no sequence was sent back: the test shows nothing",
  );
  await live.idle(30_000);
});
