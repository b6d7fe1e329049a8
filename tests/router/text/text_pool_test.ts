/** The text threads as their owner sees them: results, errors with their codes, deadlines, who waits for whom, a close. */

import assert from "node:assert/strict";

import { CodedError } from "../../../kernels/errors.ts";
import { RequestError } from "../../../router/errors.ts";
import type { PrepareContext } from "../../../router/text/prepare.ts";
import { defaultThreads, TextPool } from "../../../router/text/text_pool.ts";
import { MODEL_DIRECTORY, MODEL_INFO } from "../../support/test_service.ts";
import { NO_CORRECTION } from "../../support/generation_request.ts";
import { readFixture, withChangedFixture } from "../../support/model_directory.ts";

const CONTEXT: PrepareContext = {
  modelId: MODEL_INFO.id,
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

/** Seconds of work: texts to tokenize need not fit the context. */
const LONG = { prompt: "many words of no importance ".repeat(290_000) };

/** Text that takes the tokenizer of {@link withHostilePattern} seconds; each letter more takes it twice as long. */
const SLOW = { prompt: "a".repeat(28) };

/** A model whose words are split by a pattern that tries all ways to part a run of letters. */
async function withHostilePattern(body: (directory: string) => Promise<void>): Promise<void> {
  const file = await readFixture<Record<string, unknown>>("llama/tokenizer.json");
  const hostile = { type: "Split", pattern: { Regex: "(?:a+)+b" }, behavior: "Isolated", invert: false };
  await withChangedFixture("llama", { "tokenizer.json": { ...file, "pre_tokenizer": hostile } }, body);
}

const isLate = (error: unknown) => error instanceof RequestError && error.code === "deadline_exceeded";

Deno.test("TextPool.run() gives back tokens, and takes the body away", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY });
  try {
    const input = inputOf({ prompt: "Call me Ishmael" });
    const { prompts } = await pool.run("completion", input);
    assert.ok(prompts[0]?.tokens instanceof Uint32Array);
    assert.equal(input.bytes.byteLength, 0);
  } finally {
    pool.close();
  }
});

Deno.test("TextPool.run() keeps code and field of what the job threw", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY });
  try {
    await assert.rejects(pool.run("chat", inputOf({ messages: 7 })), (error: unknown) => {
      assert.ok(error instanceof RequestError);
      assert.deepEqual([error.code, error.param], ["invalid_request", "messages"]);
      return true;
    });
  } finally {
    pool.close();
  }
});

Deno.test("TextPool.start() fails as the model's files do", async () => {
  await assert.rejects(
    TextPool.start({ directory: "/nonexistent" }),
    (error: unknown) => error instanceof CodedError && error.code === "invalid_model",
  );
});

Deno.test("a long text does not block the loop that waits for it", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY });
  try {
    const input = inputOf({ prompt: LONG.prompt.slice(0, 2_000_000) });
    let longestMs = 0;
    let lastMs = performance.now();
    const timer = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - lastMs);
      lastMs = performance.now();
    }, 1);
    const startMs = performance.now();
    await pool.run("tokenize", input);
    const totalMs = performance.now() - startMs;
    clearInterval(timer);
    assert.ok(longestMs < totalMs / 2, `the loop stood still for ${longestMs} of ${totalMs} ms`);
  } finally {
    pool.close();
  }
});

Deno.test("a prompt that cannot fit is refused from its bytes", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY });
  try {
    const content = LONG.prompt.slice(0, 8_000_000);
    const jobs = [
      () => pool.run("chat", inputOf({ messages: [{ role: "user", content }] })),
      () => pool.run("completion", inputOf({ prompt: content })),
    ];
    for (const job of jobs) {
      await assert.rejects(job, (error: unknown) => {
        assert.ok(error instanceof RequestError && error.code === "context_length_exceeded", String(error));
        // 8 MB at 14 bytes a token, the longest of this vocabulary: had its tokens been made, it would say how many.
        assert.match(error.message, /characters has over 5714\d\d tokens, which exceed the context of 4096$/);
        return true;
      });
    }
  } finally {
    pool.close();
  }
});

Deno.test("a job that takes too long ends with an error, and the next finds a new thread", async () => {
  await withHostilePattern(async (directory) => {
    const pool = await TextPool.start({ directory, threads: 2, jobMs: 700 });
    try {
      const late = [1, 2].map(() => assert.rejects(pool.run("tokenize", inputOf(SLOW)), isLate));
      const waiting = [1, 2, 3].map(() => pool.run("tokenize", inputOf({ prompt: "Hi" })));
      await Promise.all(late);
      for (const { tokens } of await Promise.all(waiting)) assert.ok(tokens.length > 0);
    } finally {
      pool.close();
    }
  });
});

Deno.test("large jobs leave a thread to small ones, and wait for each other no longer than they may", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY, threads: 2, queueMs: 100 });
  try {
    const input = () => inputOf({ prompt: LONG.prompt.slice(0, 4_000_000) });
    const large = pool.run("tokenize", input());
    const second = pool.run("tokenize", input());
    let isDone = false;
    large.then(() => isDone = true);
    const refused = assert.rejects(
      second,
      (error: unknown) => error instanceof RequestError && error.code === "queue_timeout",
    );
    for (let i = 0; i < 3; i++) await pool.run("completion", inputOf({ prompt: "Hi" }));
    assert.ok(!isDone, "small jobs did not wait for the large one");
    await refused;
    assert.ok((await large).tokens.length > 500_000);
  } finally {
    pool.close();
  }
});

Deno.test("a job whose client leaves before its turn never runs", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY, threads: 2 });
  try {
    const running = pool.run("tokenize", inputOf({ prompt: LONG.prompt.slice(0, 2_000_000) }));
    const controller = new AbortController();
    const input = inputOf({ prompt: LONG.prompt.slice(0, 1_000_000) }, controller.signal);
    const left = assert.rejects(pool.run("tokenize", input), /gone/);
    controller.abort(new Error("gone"));
    await left;
    assert.ok(input.bytes.byteLength > 0, "its body went to no thread");
    await assert.rejects(pool.run("completion", inputOf({ prompt: "a" }, controller.signal)), /gone/);
    await running;
  } finally {
    pool.close();
  }
});

Deno.test("TextPool.run() lets go of the client's signal with the end of the job", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY });
  try {
    const { signal } = new AbortController();
    const heard = new Set<unknown>();
    signal.addEventListener = (_: string, listener: unknown) => void heard.add(listener);
    signal.removeEventListener = (_: string, listener: unknown) => void heard.delete(listener);
    const job = pool.run("completion", inputOf({ prompt: "a" }, signal));
    assert.equal(heard.size, 1);
    await job;
    assert.equal(heard.size, 0);
    await assert.rejects(pool.run("chat", inputOf({ messages: 7 }, signal)));
    assert.equal(heard.size, 0);
  } finally {
    pool.close();
  }
});

Deno.test("TextPool.close() fails what is not done", async () => {
  const pool = await TextPool.start({ directory: MODEL_DIRECTORY, threads: 2 });
  const jobs = [LONG, LONG].map((body) => pool.run("tokenize", inputOf(body)));
  pool.close();
  jobs.push(pool.run("tokenize", inputOf({ prompt: "c" })));
  const outcomes = await Promise.allSettled(jobs);
  for (const outcome of outcomes) {
    assert.ok(outcome.status === "rejected");
    assert.ok(outcome.reason instanceof RequestError && outcome.reason.code === "draining");
  }
});

Deno.test("defaultThreads() is half of the cores, at least 2 and at most 4", () => {
  assert.deepEqual([1, 2, 4, 6, 8, 128].map(defaultThreads), [2, 2, 2, 3, 4, 4]);
});
