/** The text thread as its owner sees it: results, errors with their codes, deadlines, a death, a close. */

import assert from "node:assert/strict";

import { CodedError } from "../../../kernels/errors.ts";
import { RequestError } from "../../../router/errors.ts";
import type { PrepareContext } from "../../../router/text/prepare.ts";
import { TextThread } from "../../../router/text/text_thread.ts";
import { FACTS, MODEL_DIRECTORY } from "../../support/test_service.ts";
import { NO_CORRECTION } from "../../support/generation_request.ts";

const CONTEXT: PrepareContext = {
  modelId: FACTS.id,
  contextTokens: 4096,
  maxPositions: 32_768,
  vocabSize: 8192,
  calibrated: true,
  attention: { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
};

function inputOf(body: unknown, signal?: AbortSignal) {
  const bytes = new TextEncoder().encode(JSON.stringify(body));
  return { bytes, context: CONTEXT, ...(signal ? { signal } : {}) };
}

/** Takes the thread far longer than any deadline of these tests. */
const ENDLESS = { prompt: "many words of no importance ".repeat(300_000) };

Deno.test("TextThread.run() gives back tokens, and takes the body away", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY });
  try {
    const input = inputOf({ prompt: "Call me Ishmael" });
    const { prompts } = await thread.run("completion", input);
    assert.ok(prompts[0]?.tokens instanceof Uint32Array);
    assert.equal(input.bytes.byteLength, 0);
  } finally {
    thread.close();
  }
});

Deno.test("TextThread.run() keeps code and field of what the job threw", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY });
  try {
    await assert.rejects(thread.run("chat", inputOf({ messages: 7 })), (error: unknown) => {
      assert.ok(error instanceof RequestError);
      assert.deepEqual([error.code, error.param], ["invalid_request", "messages"]);
      return true;
    });
  } finally {
    thread.close();
  }
});

Deno.test("TextThread.start() fails as the model's files do", async () => {
  await assert.rejects(
    TextThread.start({ directory: "/nonexistent" }),
    (error: unknown) => error instanceof CodedError && error.code === "invalid_model",
  );
});

Deno.test("a long prompt does not block the loop that waits for it", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY });
  try {
    const input = inputOf({ prompt: ENDLESS.prompt.slice(0, 1_000_000) });
    let longestMs = 0;
    let lastMs = performance.now();
    const timer = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - lastMs);
      lastMs = performance.now();
    }, 1);
    const startMs = performance.now();
    await assert.rejects(thread.run("completion", input), /exceed the context/);
    const totalMs = performance.now() - startMs;
    clearInterval(timer);
    assert.ok(longestMs < totalMs / 2, `the loop stood still for ${longestMs} of ${totalMs} ms`);
  } finally {
    thread.close();
  }
});

Deno.test("a job that takes too long is given up, and the next finds a new thread", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY, jobMs: 500 });
  try {
    const late = thread.run("completion", inputOf(ENDLESS));
    const waiting = thread.run("completion", inputOf({ prompt: "Hi" }));
    await assert.rejects(late, (error: unknown) => error instanceof CodedError && error.code === "deadline_exceeded");
    assert.equal((await waiting).prompts.length, 1);
  } finally {
    thread.close();
  }
});

Deno.test("a job that waits too long, or whose client leaves, never runs", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY, queueMs: 50 });
  try {
    const running = thread.run("completion", inputOf({ prompt: ENDLESS.prompt.slice(0, 3_000_000) }));
    const controller = new AbortController();
    const left = thread.run("completion", inputOf({ prompt: "a" }, controller.signal));
    const late = thread.run("completion", inputOf({ prompt: "b" }));
    controller.abort(new Error("gone"));
    await assert.rejects(left, /gone/);
    await assert.rejects(late, (error: unknown) => error instanceof RequestError && error.code === "queue_timeout");
    await assert.rejects(thread.run("completion", inputOf({ prompt: "a" }, controller.signal)), /gone/);
    await assert.rejects(running, /exceed the context/);
  } finally {
    thread.close();
  }
});

Deno.test("TextThread.run() lets go of the client's signal with the end of the job", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY });
  try {
    const { signal } = new AbortController();
    const heard = new Set<unknown>();
    signal.addEventListener = (_: string, listener: unknown) => void heard.add(listener);
    signal.removeEventListener = (_: string, listener: unknown) => void heard.delete(listener);
    const job = thread.run("completion", inputOf({ prompt: "a" }, signal));
    assert.equal(heard.size, 1);
    await job;
    assert.equal(heard.size, 0);
    await assert.rejects(thread.run("chat", inputOf({ messages: 7 }, signal)));
    assert.equal(heard.size, 0);
  } finally {
    thread.close();
  }
});

Deno.test("TextThread.close() fails what is not done", async () => {
  const thread = await TextThread.start({ directory: MODEL_DIRECTORY });
  const running = thread.run("completion", inputOf(ENDLESS));
  const waiting = thread.run("completion", inputOf({ prompt: "b" }));
  thread.close();
  for (const job of [running, waiting, thread.run("completion", inputOf({ prompt: "c" }))]) {
    await assert.rejects(job, (error: unknown) => error instanceof RequestError && error.code === "draining");
  }
});
