/** The arithmetic of `bench` and what it prints; the clocks are not tested. */

import assert from "node:assert/strict";
import { parseAgreements } from "../../../../router/commands/bench/bench_flags.ts";
import { exchangeFigures } from "../../../../router/commands/bench/exchange.ts";
import type { ContextFigures } from "../../../../router/commands/bench/figures.ts";
import { type BenchResult, report, speedLine } from "../../../../router/commands/bench/report.ts";

const WORKER = { adapter: "GPU", kvTokens: 640, place: null };
const NONE = { queries: 0, keys: 0, states: 0, rows: 0, candidates: 0, replicas: 0 };

Deno.test("exchangeFigures() divides time by steps and layers, bytes by tokens, and skips what shows nothing", () => {
  const timing = { encodeMs: 1, waitMs: 1, totalMs: 2 };
  const exchange = {
    ms: { queries: 4, keys: 0, states: 8, rows: 1, candidates: 2, replicas: 0.5 },
    readMs: 6,
    bytes: { queries: 3000, keys: 0, states: 600, rows: 0, candidates: 90, replicas: 6000 },
    counts: { queries: 2, keys: 0, states: 2, rows: 1, candidates: 1, replicas: 1 },
  };
  assert.equal(exchangeFigures([timing], { layers: 2, tokens: 3 }), undefined);
  const idle = {
    ...timing,
    exchange: { ms: NONE, readMs: 0, bytes: NONE, counts: NONE },
    replicas: { chosen: 40, missing: 0 },
  };
  const busy = { ...timing, exchange, replicas: { chosen: 60, missing: 5 } };
  assert.deepEqual(exchangeFigures([busy, idle], { layers: 2, tokens: 3 }), {
    msPerLayer: 3,
    readMsPerLayer: 1.5,
    ms: { queries: 2, keys: 0, states: 4, rows: 0.5, candidates: 1, replicas: 0.25 },
    bytesPerToken: { queries: 1000, keys: 0, states: 200, rows: 0, candidates: 30, replicas: 2000 },
    missing: 0.05,
  });
});

Deno.test("speedLine() says what was measured at a context, and nothing of what was not", () => {
  const ms = { step: 4, gpu: 3, encode: 0.5, readBack: 0.07, wire: 0.4 };
  const decode = [{ attention: "dense", tokensPerSecond: 250, ms, meanMs: 4 }] as const;
  assert.equal(speedLine({ context: 256, decode }), "context 256: dense step 4.00 ms");
  assert.equal(
    speedLine({ context: 256, decode, prefill: { tokensPerSecond: 1234.4, firstTokenMs: 200 } }),
    "context 256: prompt 1234 tokens/s, dense step 4.00 ms",
  );
});

Deno.test("report() shows speed for every group, exchanges where there are any, and what did not fit", () => {
  const ms = { step: 4, gpu: 3, encode: 0.5, readBack: 0.07, wire: 0.4 };
  const exchange = { msPerLayer: 0.25, readMsPerLayer: 0.125, ms: NONE, bytesPerToken: { ...NONE, states: 528 } };
  const alone: ContextFigures = {
    context: 256,
    prefill: { tokensPerSecond: 1000, firstTokenMs: 256 },
    decode: [{ attention: "dense", tokensPerSecond: 250, ms, meanMs: 4.25 }],
  };
  const together: ContextFigures = {
    ...alone,
    prefill: { tokensPerSecond: 1000, firstTokenMs: 256, exchange },
    decode: [{ attention: "sparse", tokensPerSecond: 250, ms, meanMs: 4.25, exchange }],
  };
  const lines = report({
    date: "2026-01-01",
    model: "tiny",
    parameters: 600_000,
    budget: 64,
    fill: "prefill",
    groups: [
      { workers: [WORKER], kvTokens: 640, longestContext: 640, figures: [alone], skipped: [1024] },
      {
        workers: [WORKER, { ...WORKER, place: "a:1" }],
        kvTokens: 1280,
        longestContext: 1280,
        figures: [together],
        skipped: [],
      },
    ],
  });
  assert.ok(lines.includes("| 1 | 256 | 1000 | 256 | dense | 250.0 | 4.00 | 3.00 | 0.50 | 0.07 | 0.40 | – |"));
  assert.ok(lines.includes("| 2 | 256 | 1000 | 256 | sparse | 250.0 | 4.00 | 3.00 | 0.50 | 0.07 | 0.40 | 0.250 |"));
  assert.ok(
    lines.includes("| 2 | 256 | prefill | 0.250 | 0.125 | 0.000 | 0.000 | 0.000 | 0 | 0 | 528 | 0 | 0 | 0 | – |"),
  );
  assert.equal(lines.filter((line) => line.startsWith("| 1 | 256 | prefill")).length, 0);
  assert.match(lines.join("\n"), /1 worker: .*longest context that fits 640; not measured, as they do not fit: 1024/);
  assert.match(
    lines.join("\n"),
    /2 workers: GPU \(640 KV tokens\) · GPU, a:1 \(640 KV tokens\); 1280 KV tokens in all/,
  );
  assert.match(lines[0] ?? "", /caches filled by prompts of the context's length$/);
  assert.ok(!lines.join("\n").includes("dense span"), "nothing of corrections, as none were measured");
});

/** Dense steps of 10 ms, sparse ones of 4 ms. */
function corrected(): BenchResult {
  const ms = { step: 4, gpu: 3, encode: 0.5, readBack: 0.07, wire: 0.4 };
  const decoded = (attention: "dense" | "sparse", meanMs: number) =>
    ({ attention, tokensPerSecond: 1000 / meanMs, ms: { ...ms, step: meanMs }, meanMs }) as const;
  const cycle = (stride: number, correctionMs: number) => ({
    stride,
    cycles: 3,
    cycleMs: (stride - 1) * 4 + correctionMs,
    correction: { ...ms, step: correctionMs, gpu: correctionMs - 1 },
    flop: stride * 1e11,
    teraflopPerSecond: stride * 100 / correctionMs,
  });
  const figures: ContextFigures = {
    context: 32000,
    decode: [decoded("dense", 10), decoded("sparse", 4)],
    corrections: {
      refresh: [{ ...cycle(16, 180), msPerToken: 15 }, { ...cycle(32, 164), msPerToken: 9 }],
      refreshBeatsDenseFrom: 32,
      rounds: [cycle(2, 15), cycle(4, 20)],
      lossless: [{ agreement: 0.5, stride: 2, expectedTokens: 1.5, msPerToken: 12.667 }],
    },
  };
  const group = { kvTokens: 640, longestContext: 640, figures: [figures], skipped: [] };
  return {
    date: "2026-01-01",
    model: "tiny",
    parameters: 600_000,
    budget: 64,
    fill: "copied",
    groups: [{ workers: [WORKER], ...group }],
  };
}

Deno.test("report() compares refresh and lossless with dense, also where they are slower, and says how", () => {
  const lines = report(corrected());
  const text = lines.join("\n");
  for (
    const row of [
      "| 1 | 32000 | – | – | dense | 100.0 | 10.00 | 3.00 | 0.50 | 0.07 | 0.40 | – |",
      "| 1 | 32000 | dense | 10.00 | 100.0 | – |",
      "| 1 | 32000 | sparse | 4.00 | 250.0 | 2.50 × faster |",
      "| 1 | 32000 | sparse, refresh every 16 | 15.00 | 66.7 | 1.50 × slower |",
      "| 1 | 32000 | sparse, refresh every 32 | 9.00 | 111.1 | 1.11 × faster |",
      "| 1 | 32000 | lossless at agreement 0.5, stride 2 | 12.67 | 78.9 | 1.27 × slower |",
      "| 1 | 32000 | refresh | 32 | 164.00 | 5.13 | 163.00 | 0.50 | 3200 | 19.5 |",
      "| 1 | 32000 | verification | 4 | 20.00 | 5.00 | 19.00 | 0.50 | 400 | 20 |",
      "| workers | context | stride | round ms | ms/token at 0.5 |",
      "| 1 | 32000 | 4 | 32.00 | 17.07 |",
      "* 1 worker, context 32000: refresh is faster than dense from stride 32 on (of 16, 32)",
    ]
  ) assert.ok(lines.includes(row), `${row}\nis not in\n${text}`);
  assert.match(text, /prompts of up to 512 tokens, so prefill is not measured/);
  assert.match(text, /agreement a is given, not measured here.*\(1 − a\^s\) \/ \(1 − a\)/);
});

Deno.test("parseAgreements() takes shares, and names what it does not take", () => {
  assert.deepEqual(parseAgreements("0.9, 0.95,1,0"), [0.9, 0.95, 1, 0]);
  for (const text of ["", "0.9,", "1.1", "-0.1", "most", "NaN"]) {
    assert.throws(() => parseAgreements(text), { message: /--agreement: must be a number from 0 to 1, .* given "/ });
  }
});
