/** What breaks under a running service: its worker, its model's files, its deadlines. No request waits for ever. */

import assert from "node:assert/strict";

import { startService } from "../../router/start_service.ts";
import { LiveService } from "../support/live_service.ts";
import { FIXTURES, withChangedFixture } from "../support/model_directory.ts";
import { childrenOf, isRunning } from "../support/processes.ts";

/** From the death of a worker to a new one that has loaded the model; a fresh process has to start. */
const RECOVERED_MS = 180_000;

const SMALL = { random: "tiny", kvTokens: 8192 } as const;

function prompt(tokens: number): number[] {
  return Array.from({ length: tokens }, (_, i) => 10 + (7 * i) % 500);
}

interface Completion {
  readonly choices: readonly {
    readonly text: string;
    readonly logprobs: { readonly tokens: readonly string[]; readonly token_logprobs: readonly number[] };
  }[];
}

Deno.test("a worker that is killed is replaced, and clients notice no more than a pause", async (t) => {
  await using live = await LiveService.start(SMALL);
  const request = {
    prompt: prompt(200),
    "max_tokens": 150,
    seed: 3,
    "ignore_eos": true,
    attention: { mode: "dense" },
    // What was drawn before counts on.
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.2,
  };
  const undisturbed = (await live.ask<Completion>("/v1/completions", request)).body.choices[0]?.text;

  await t.step("idle: unready for a moment, and who asks then is served when it is over", async () => {
    await live.killWorker();
    await live.until(async () => {
      const response = await fetch(`${live.origin}/ready`);
      await response.body?.cancel();
      return response.status === 503;
    }, 30_000);
    // Who asks meanwhile waits.
    assert.equal((await live.ask<Completion>("/v1/completions", request)).body.choices[0]?.text, undisturbed);
    await live.ready(RECOVERED_MS);
  });

  await t.step("during a stream: it goes on where it was, with the tokens it would have had", async () => {
    // Looked up before: meanwhile the stream would go on.
    const worker = await live.worker();
    const stream = await live.stream("/v1/completions", { ...request, cache_salt: "stream" });
    await stream.until(() => stream.tokenTimes.length >= 20);
    Deno.kill(worker, "SIGKILL");
    await stream.finish();
    assert.ok(stream.done && stream.error === undefined, JSON.stringify(stream.error));
    assert.equal(stream.text(), undisturbed);
    assert.equal(stream.finishReason, "length");
    assert.equal(await live.metric("tidepool_replays_total"), 1);
  });

  await t.step("while a prompt is read: it is read again", async () => {
    const worker = await live.worker();
    const stream = await live.stream("/v1/completions", { ...request, prompt: prompt(1500), max_tokens: 5 });
    await stream.until(() => stream.events.length > 0);
    await live.until(async () => await live.metric("tidepool_kv_cache_usage_perc") > 0, 30_000);
    assert.equal(stream.tokenTimes.length, 0);
    Deno.kill(worker, "SIGKILL");
    await stream.finish();
    assert.ok(stream.done && stream.finishReason === "length", JSON.stringify(stream.error));
    assert.equal(await live.metric("tidepool_replays_total"), 2);
  });

  await t.step("and each time it is in the log", async () => {
    assert.equal(live.lines.filter((line) => /The worker is lost: .*SIGKILL/.test(line)).length, 3);
    await live.idle(30_000);
  });
});

Deno.test("requests that lose their worker again and again go on as long as they make progress", async () => {
  await using live = await LiveService.start(SMALL);
  const request = { prompt: prompt(200), "max_tokens": 400, "ignore_eos": true };
  const whole = live.ask<{ usage: { completion_tokens: number } }>("/v1/completions", {
    ...request,
    cache_salt: "whole",
  });
  const stream = await live.stream("/v1/completions", request);
  // Read as it comes: what was buffered before a loss is no progress after it.
  const finished = stream.finish();
  const receives = (tokens: number) =>
    live.until(() => Promise.resolve(stream.tokenTimes.length >= tokens), RECOVERED_MS);
  await receives(5);
  for (const epoch of [2, 3]) {
    await live.killWorker();
    await live.until(async () => await live.metric("tidepool_group_epoch") === epoch, RECOVERED_MS);
    await live.ready(RECOVERED_MS);
    await receives(stream.tokenTimes.length + 6);
  }
  await finished;
  assert.deepEqual([stream.done, stream.error, stream.finishReason], [true, undefined, "length"]);
  const { status, body } = await whole;
  assert.deepEqual([status, body.usage.completion_tokens], [200, 400]);
  await live.idle(30_000);
});

Deno.test("a worker that hangs under a stream is given up, and the stream goes on", async () => {
  await using live = await LiveService.start(SMALL);
  const worker = await live.worker();
  // Enough steps that a deadline follows from what steps take: 5 s and a little.
  const stream = await live.stream("/v1/completions", {
    prompt: prompt(10),
    max_tokens: 300,
    ignore_eos: true,
    attention: { mode: "dense" },
  });
  await stream.until(() => stream.tokenTimes.length >= 20);
  Deno.kill(worker, "SIGSTOP");
  await stream.finish();
  assert.deepEqual([stream.done, stream.error, stream.finishReason], [true, undefined, "length"]);
  assert.ok(live.lines.some((line) => /did not answer within/.test(line)));
  assert.ok(stream.comments.filter((comment) => comment === "keep-alive").length >= 2, "alive in the silence, too");
});

Deno.test("a model with a truncated weight file is refused by file and tensor, and leaves no process", async () => {
  const whole = await Deno.readFile(`${FIXTURES}llama/model.safetensors`);
  await withChangedFixture("llama", { "model.safetensors": whole.slice(0, whole.length - 5000) }, async (directory) => {
    const service = await startService({ port: 0, model: directory, kvTokens: 1024 });
    try {
      const reason = /model\.safetensors: expected \d+ bytes to hold tensor "model\.\S+\.weight", found \d+/;
      await assert.rejects(service.ready, reason);
      assert.match(await service.broken, reason);
      const origin = `http://127.0.0.1:${service.address.port}`;
      const response = await fetch(`${origin}/v1/completions`, { method: "POST", body: '{"prompt":"Hi"}' });
      assert.equal(response.status, 503);
      assert.match(await response.text(), /"code":"group_unavailable"/);
      assert.deepEqual((await childrenOf(Deno.pid)).filter(isRunning), []);
    } finally {
      await service.close();
    }
  });
});
