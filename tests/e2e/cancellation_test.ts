/** Clients that leave: what they asked for stops, and its pages come back. */

import assert from "node:assert/strict";

import { LiveService } from "../support/live_service.ts";

/** A disconnect is seen, the running step ends, the next one releases the pages: 0.1 s, but on a busy machine. */
const RELEASED_MS = 30_000;

/** Nearly all that the model can hold: many seconds of decoding. */
const ENDLESS = { "max_tokens": 3900, "ignore_eos": true } as const;

/** A prompt of token ids: random weights have few words. */
function prompt(tokens: number, first: number): number[] {
  return Array.from({ length: tokens }, (_, i) => 10 + (first + 7 * i) % 500);
}

Deno.test("a client that leaves frees what it held", async (t) => {
  await using live = await LiveService.start({ random: "tiny", kvTokens: 8192, maxBatch: 2 });
  const running = (count: number) =>
    live.until(async () => (await live.load()).running === count && (await live.load()).kvUsage > 0, 60_000);
  const begin = (fields: object = {}) =>
    live.stream("/v1/completions", { prompt: prompt(100, 1), ...ENDLESS, ...fields });
  let disconnects = 0;
  const released = async () => {
    await live.idle(RELEASED_MS);
    disconnects++;
    // It ended because its client left, however long that took.
    await live.until(async () => await live.metric("tidepool_client_disconnects_total") === disconnects, RELEASED_MS);
    const generated = await live.metric("tidepool_generation_tokens_total");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await live.metric("tidepool_generation_tokens_total"), generated, "nothing is computed any more");
  };

  await t.step("a stream, while it decodes", async () => {
    const stream = await begin();
    await stream.until(() => stream.tokenTimes.length >= 5);
    await running(1);
    await stream.leave();
    await released();
  });

  await t.step("a stream, before its first token", async () => {
    const stream = await begin({ prompt: prompt(3500, 2), max_tokens: 500 });
    await stream.until(() => stream.events.length > 0);
    await running(1);
    assert.equal(stream.tokenTimes.length, 0, "left while the prompt is read");
    await stream.leave();
    await released();
  });

  await t.step("a request that is no stream", async () => {
    const controller = new AbortController();
    const answer = live.post("/v1/completions", { prompt: prompt(100, 3), ...ENDLESS }, { signal: controller.signal });
    await running(1);
    controller.abort();
    await assert.rejects(answer, { name: "AbortError" });
    await released();
  });

  await t.step("all choices of a request with several", async () => {
    const stream = await begin({ prompt: [prompt(50, 4), prompt(70, 5)] });
    await running(2);
    await stream.leave();
    await released();
  });

  await t.step("a request that waits for its turn", async () => {
    const first = await Promise.all([begin(), begin({ prompt: prompt(100, 6) })]);
    await running(2);
    const waiting = await begin();
    await live.until(async () => (await live.load()).waiting === 1, 60_000);
    await waiting.leave();
    await live.until(async () => (await live.load()).waiting === 0, RELEASED_MS);
    assert.equal((await live.load()).running, 2, "the others go on");
    disconnects++;
    await Promise.all(first.map((stream) => stream.leave()));
    disconnects++;
    await released();
  });

  await t.step("a stream that ends by itself or by a stop token is no disconnect", async () => {
    const stream = await (await begin({ max_tokens: 3 })).finish();
    assert.deepEqual([stream.done, stream.finishReason], [true, "length"]);
    await live.idle(RELEASED_MS);
    assert.equal(await live.metric("tidepool_client_disconnects_total"), disconnects);
  });

  await t.step("and the next client is served as if nothing had been", async () => {
    const { status, body } = await live.ask<{ usage: { completion_tokens: number } }>("/v1/completions", {
      prompt: prompt(3500, 2),
      max_tokens: 10,
      ignore_eos: true,
    });
    assert.deepEqual([status, body.usage.completion_tokens], [200, 10]);
    assert.deepEqual(live.lines.filter((line) => /refused|mistake|Error/.test(line)), []);
  });
});
