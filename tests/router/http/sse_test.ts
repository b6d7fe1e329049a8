/** Event streams in time: first bytes, silence, slow and absent readers. */

import assert from "node:assert/strict";
import { EventSourceParserStream } from "eventsource-parser/stream";

import { sseComment, sseData, type SseOptions, sseStream } from "../../../router/http/sse.ts";

/** Options that count what is called. */
Deno.test("sseStream() ends when the client is gone although the body is not cancelled", async () => {
  const client = new AbortController();
  const { calls, options } = watched({ signal: client.signal, stallMs: 60_000 });
  const reader = sseStream(framesOf("data: 1\n\n", "data: 2\n\n"), options).getReader();
  await reader.read();
  await reader.read();
  client.abort();
  // The sanitizer would find the timer that waits for the reader.
  assert.deepEqual(calls, { keepAlives: 0, cancels: 1 });
});

Deno.test("sseStream() makes nothing for a client that left before it began", () => {
  const { calls, options } = watched({ signal: AbortSignal.abort(), stallMs: 60_000 });
  sseStream(framesOf("data: 1\n\n"), options);
  assert.deepEqual(calls, { keepAlives: 0, cancels: 1 });
});

function watched(changes: Partial<SseOptions> = {}) {
  const calls = { keepAlives: 0, cancels: 0 };
  const options: SseOptions = {
    keepAliveMs: 60_000,
    stallMs: 60_000,
    signal: new AbortController().signal,
    onKeepAlive: () => void calls.keepAlives++,
    onCancel: () => void calls.cancels++,
    ...changes,
  };
  return { calls, options };
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function* framesOf(...frames: readonly string[]): AsyncGenerator<string> {
  yield* frames;
  await Promise.resolve();
}

async function textOf(body: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(body).text();
}

Deno.test("sseStream() begins with a comment and passes frames on as they are", async () => {
  const { calls, options } = watched();
  const text = await textOf(sseStream(framesOf(sseData({ a: "x\ny" }), sseComment("hm")), options));
  assert.equal(text, ': keep-alive\n\ndata: {"a":"x\\ny"}\n\n: hm\n\n');
  assert.deepEqual(calls, { keepAlives: 0, cancels: 0 });
});

Deno.test("sseStream() is read by a parser that is not ours", async () => {
  const values = ["é\n\r\u2028", ": not a comment", "data: x"];
  const body = sseStream(framesOf(...values.map(sseData), sseComment("x")), watched().options);
  const events = body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const read: unknown[] = [];
  for await (const event of events) read.push(JSON.parse(event.data));
  assert.deepEqual(read, values);
});

Deno.test("sseStream() writes comments while nothing else comes, by wall clock", async () => {
  const { calls, options } = watched({ keepAliveMs: 20 });
  async function* slow() {
    await sleep(110);
    yield "data: 1\n\n";
  }
  const text = await textOf(sseStream(slow(), options));
  assert.ok(calls.keepAlives >= 1 && calls.keepAlives <= 5, `${calls.keepAlives} comments`);
  assert.equal(text, ": keep-alive\n\n".repeat(1 + calls.keepAlives) + "data: 1\n\n");
});

Deno.test("sseStream() makes no frame before the reader wants it", async () => {
  let made = 0;
  async function* eager() {
    for (; made < 1000; made++) yield `data: ${made}\n\n`;
    await Promise.resolve();
  }
  const reader = sseStream(eager(), watched().options).getReader();
  for (let i = 0; i < 4; i++) await reader.read();
  await sleep(5);
  assert.ok(made <= 4, `${made} frames for a reader that took 4`);
  await reader.cancel();
});

Deno.test("sseStream() reports when the reader leaves, also in the middle of silence", async () => {
  const { calls, options } = watched();
  const gate = Promise.withResolvers<void>();
  let finished = false;
  async function* waiting() {
    try {
      await gate.promise;
      yield "data: never read\n\n";
    } finally {
      finished = true;
    }
  }
  const reader = sseStream(waiting(), { ...options, onCancel: () => (options.onCancel(), gate.resolve()) }).getReader();
  await reader.read();
  const pending = reader.read();
  await sleep(1);
  await reader.cancel();
  assert.ok((await pending).done);
  assert.deepEqual(calls, { keepAlives: 0, cancels: 1 });
  assert.ok(finished);
});

Deno.test("sseStream() gives up a reader that takes nothing", async () => {
  const { calls, options } = watched({ stallMs: 20 });
  const reader = sseStream(framesOf("data: 1\n\n", "data: 2\n\n"), options).getReader();
  await reader.read();
  await sleep(60);
  assert.equal(calls.cancels, 1);
  await assert.rejects(reader.read(), /stopped reading/);
});
