/** What becomes of a run's figures: aims reached or not, and tables that leave out what was not measured. */

import assert from "node:assert/strict";

import type { BenchFile } from "../../router/commands/bench/compare.ts";
import { goalTable } from "./goals.ts";
import { kernelTables, pageTables, withTables } from "./page_tables.ts";
import type { AllFigures } from "./read_figures.ts";

const NOTHING: AllFigures = { bench: {}, peers: {}, kernels: {}, loading: undefined, cards: {} };

function step(attention: "dense" | "sparse", ms: number) {
  const parts = { step: ms, gpu: ms - 0.2, encode: 1, readBack: 0.1, wire: 0.1 };
  return { attention, tokensPerSecond: 1000 / ms, ms: parts, meanMs: ms };
}

const DECODE: BenchFile = {
  version: 1,
  named: [],
  date: "2026-11-27",
  model: "llama-3-8b",
  parameters: 8e9,
  budget: 512,
  fill: "copied",
  groups: [{
    workers: [{ adapter: "driver 580", kvTokens: 131072, place: "NVIDIA H200 (/dev/nvidia0) at 0000:00:06.0" }],
    kvTokens: 131072,
    longestContext: 131072,
    skipped: [],
    prompts: [{ context: 4096, tokensPerSecond: 12000, firstTokenMs: 341 }],
    figures: [{ context: 1024, decode: [step("dense", 4.4), step("sparse", 4)] }, {
      context: 98304,
      decode: [step("dense", 10), step("sparse", 5.5)],
      corrections: {
        refresh: [{
          stride: 32,
          cycles: 3,
          cycleMs: 190,
          msPerToken: 5.9,
          correction: step("dense", 18).ms,
          flop: 1e12,
          teraflopPerSecond: 50,
        }],
        refreshBeatsDenseFrom: 8,
        rounds: [],
        lossless: [{ agreement: 0.96, stride: 8, expectedTokens: 7, msPerToken: 8 }],
      },
    }],
  }],
};

const PEER = {
  results: [{
    type: "F16",
    about: "llama.cpp v1, vulkan",
    figures: [{ context: 4096, prefillTokensPerSecond: 13000, decodeTokensPerSecond: 120 }],
  }],
};

Deno.test("goalTable() says of each aim whether it was reached, and by how much not", () => {
  const { rows } = goalTable({ ...NOTHING, bench: { decode: DECODE }, peers: { peer: PEER } });
  const row = (what: string) => rows.find(([name]) => name === what)?.slice(1);
  assert.deepEqual(row("dense step at 1024, ms"), ["4.4", "–", "≤ 4.5", "yes"]);
  assert.deepEqual(row("dense step at 32768, ms"), ["–", "–", "≤ 5.6", "not measured"]);
  assert.deepEqual(row("dense step at 98304, ms"), ["10", "–", "≤ 8", "no: 1.25 × off"]);
  assert.deepEqual(row("sparse step at 98304 ÷ dense step at 1024"), ["1.25", "–", "≤ 1.1", "no: 1.14 × off"]);
  assert.deepEqual(row("correction of 32 rows ÷ dense step, at 98304"), ["1.8", "–", "≤ 1.5", "no: 1.20 × off"]);
  assert.deepEqual(row("prompt of 4096, tokens/s"), ["12,000", "13,000", "≥ 13,000", "no: 1.08 × off"]);
  assert.deepEqual(row("lossless at 98304, agreement 0.96: times as fast as dense"), [
    "1.25",
    "–",
    "≥ 1.35",
    "no: 1.08 × off",
  ]);
  assert.deepEqual(row("loading bf16 from the page cache, GB/s"), ["–", "–", "≥ 2", "not measured"]);
});

Deno.test("pageTables() names the card, the day, the command and the peer, and leaves out tables without rows", () => {
  const lines = pageTables({ ...NOTHING, bench: { decode: DECODE }, peers: { peer: PEER } });
  assert.match(
    lines[0] ?? "",
    /^NVIDIA H200, driver 580, 2026-11-27: `deno task bench:all .*llama\.cpp v1, vulkan, in the same run\.$/,
  );
  assert.ok(lines.includes("| 98,304 | 10.00 (9.80, 1.00) | 5.50 (5.30, 1.00) | – | 18.0 (17.8) | 1.80 | 8.00 (8) |"));
  assert.ok(lines.includes("**Aims**") && !lines.some((line) => /Batches|budget\*|7B/.test(line)));
  const [named] = pageTables({
    ...NOTHING,
    bench: { decode: DECODE },
    cards: { decode: "H200, GPU 0", peer: "H200, GPU 1" },
  });
  assert.match(named ?? "", /^H200, GPU 0, 2026.* Phases by card: H200, GPU 0: decode; H200, GPU 1: peer\.$/);
  assert.deepEqual(pageTables(NOTHING).filter((line) => line.startsWith("**")), ["**Aims**"]);
});

Deno.test("kernelTables() names the card of the profile, and leaves out tables without rows", () => {
  const kernels = [{ name: "matmul 8×8×8 f16", ms: 0.5, gigabytesPerSecond: 3000, teraflopPerSecond: 1 }];
  const lines = kernelTables({
    ...NOTHING,
    bench: { decode: DECODE },
    kernels: { kernels: { adapter: "H200", kernels } },
    cards: { decode: "H200, GPU 0", profile: "H200, GPU 1" },
  });
  assert.match(lines[0] ?? "", /^H200, GPU 1, 2026-11-27: .*, budget 512\.$/);
  assert.deepEqual(lines.filter((line) => line.startsWith("**")), ["**bench:kernels, kernels**"]);
  assert.ok(lines.includes("| matmul 8×8×8 f16 | 0.5000 | 3,000 | 1 |"));
  assert.deepEqual(kernelTables(NOTHING), []);
});

Deno.test("withTables() replaces what stands between a page's marks, and nothing else", async () => {
  for (const name of ["benchmarks", "kernels"]) {
    const page = await Deno.readTextFile(new URL(`../../docs/${name}.md`, import.meta.url));
    const placed = withTables(page, ["| a |", "| - |"]);
    assert.match(placed, /\n<!-- tables of bench:all -->\n\n\| a \|\n\| - \|\n\n<!-- end of tables -->\n/);
    const around = (text: string) => text.replace(/(?<=tables of bench:all -->)[^]*(?=<!-- end of tables)/, "");
    assert.equal(around(placed), around(page));
  }
  assert.throws(() => withTables("no marks", []), /Cannot place tables/);
});
