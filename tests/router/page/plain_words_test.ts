/** Numbers of the API in words for people. */

import assert from "node:assert/strict";

import type { Answer } from "../../../router/page/chat/conversation.ts";
import { describeAnswer, percent, seconds, timeLeft } from "../../../router/page/chat/plain_words.ts";
import { parseMetrics, total } from "../../../router/page/group/metric_samples.ts";

const ANSWER: Answer = {
  ...{ role: "assistant", id: "a", text: "x", reasoning: "", tokens: 101, state: "done" },
  times: { askedAt: 0, firstTokenAt: 2000, endedAt: 12_000 },
  usage: {
    "prompt_tokens": 31_000,
    "completion_tokens": 101,
    "prompt_tokens_details": { "cached_tokens": 15_500 },
    attention: {
      ...{ mode: "sparse", budget: 256, "select_layers": [2, 6], context: 32_000, "rows_read_per_token": 38_400 },
      correction: { mode: "audit", corrections: 3, rows: 101 },
      audit: { checked: 100, agreed: 96, agreement: 0.96, "mean_kl": 0.01 },
    },
  },
};

Deno.test("describeAnswer() says what was read, how fast, and how far it is full attention", () => {
  assert.deepEqual(describeAnswer(ANSWER, 12), [
    "31,000 tokens read, 50 % from cache in 2.0 s",
    "101 written, 10.0 tokens/s",
    "Sparse layers read 256 of 32,000 positions (0.8 %); over all layers 10 % of the cache per token, " +
    "corrections included",
    "96 % of the tokens are those of full attention (100 checked)",
    "101 rows were computed again with full attention",
  ]);
});

Deno.test("percent(), seconds() and timeLeft() keep the digits that matter", () => {
  assert.deepEqual([0, 0.0005, 0.0051, 0.1, 0.964, 0.998, 1].map(percent), [
    "0 %",
    "0.05 %",
    "0.5 %",
    "10 %",
    "96 %",
    "99 %",
    "100 %",
  ]);
  assert.deepEqual([850, 12_400, 300_000].map(seconds), ["0.8 s", "12 s", "5 min"]);
  assert.equal(timeLeft({ total: 1100, cached: 100, processed: 600, elapsedMs: 1000 }), 1000);
  assert.equal(timeLeft({ total: 1100, cached: 100, processed: 100, elapsedMs: 1000 }), undefined);
});

Deno.test("parseMetrics() reads labels and sums over them", () => {
  const samples = parseMetrics('# HELP a b\na{x="1",y="q\\"r"} 2\na{x="2"} 3.5\nb 7\n\nnot a metric\n');
  assert.deepEqual([total(samples, "a"), total(samples, "a", { x: "2" }), total(samples, "b"), total(samples, "c")], [
    ...[5.5, 3.5, 7, 0],
  ]);
});
