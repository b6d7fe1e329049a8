/** The arithmetic of `bench` and what it prints; the clocks are not tested. */

import assert from "node:assert/strict";
import { type ContextFigures, exchangeFigures } from "../../router/commands/bench_figures.ts";
import { report } from "../../router/commands/bench_report.ts";

const NONE = { queries: 0, states: 0, rows: 0, candidates: 0 };

Deno.test("exchangeFigures() divides time by steps and layers, bytes by tokens, and skips what tells nothing", () => {
  const timing = { encodeMs: 1, waitMs: 1, totalMs: 2 };
  const exchange = {
    ms: { queries: 4, states: 8, rows: 1, candidates: 2 },
    readMs: 6,
    bytes: { queries: 3000, states: 600, rows: 0, candidates: 90 },
  };
  assert.equal(exchangeFigures([timing], { layers: 2, tokens: 3 }), undefined);
  const idle = { ...timing, exchange: { ms: NONE, readMs: 0, bytes: NONE } };
  assert.deepEqual(exchangeFigures([{ ...timing, exchange }, idle], { layers: 2, tokens: 3 }), {
    msPerLayer: 3,
    readMsPerLayer: 1.5,
    ms: { queries: 2, states: 4, rows: 0.5, candidates: 1 },
    bytesPerToken: { queries: 1000, states: 200, rows: 0, candidates: 30 },
  });
});

Deno.test("report() shows speed for every group, exchanges where there are any, and what did not fit", () => {
  const ms = { step: 4, gpu: 3, encode: 0.5, readBack: 0.07, wire: 0.4 };
  const exchange = { msPerLayer: 0.25, readMsPerLayer: 0.125, ms: NONE, bytesPerToken: { ...NONE, states: 528 } };
  const alone: ContextFigures = {
    context: 256,
    prefillTokensPerSecond: 1000,
    firstTokenMs: 256,
    decode: [{ attention: "dense", tokensPerSecond: 250, ms }],
  };
  const together: ContextFigures = {
    ...alone,
    prefillExchange: exchange,
    decode: [{ attention: "sparse", tokensPerSecond: 250, ms, exchange }],
  };
  const worker = { adapter: "GPU", kvTokens: 640, place: null };
  const lines = report({
    date: "2026-01-01",
    model: "tiny",
    parameters: 600_000,
    budget: 64,
    groups: [
      { workers: [worker], kvTokens: 640, longestContext: 640, figures: [alone], skipped: [1024] },
      {
        workers: [worker, { ...worker, place: "a:1" }],
        kvTokens: 1280,
        longestContext: 1280,
        figures: [together],
        skipped: [],
      },
    ],
  });
  assert.ok(lines.includes("| 1 | 256 | 1000 | 256 | dense | 250.0 | 4.00 | 3.00 | 0.50 | 0.07 | 0.40 | – |"));
  assert.ok(lines.includes("| 2 | 256 | 1000 | 256 | sparse | 250.0 | 4.00 | 3.00 | 0.50 | 0.07 | 0.40 | 0.250 |"));
  assert.ok(lines.includes("| 2 | 256 | prefill | 0.250 | 0.125 | 0.000 | 0.000 | 0 | 528 | 0 | 0 |"));
  assert.equal(lines.filter((line) => line.startsWith("| 1 | 256 | prefill")).length, 0);
  assert.match(lines.join("\n"), /1 worker: .*longest context that fits 640; not measured, as they do not fit: 1024/);
  assert.match(
    lines.join("\n"),
    /2 workers: GPU \(640 KV tokens\) · GPU, a:1 \(640 KV tokens\); 1280 KV tokens in all/,
  );
});
