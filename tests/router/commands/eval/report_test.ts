/** What `eval --corrections` and `--lossless` read, print and draw; what they measure is tested with the engine. */

import assert from "node:assert/strict";
import type { CorrectionFigures, VariantFigures } from "../../../../router/commands/eval/corrections.ts";
import { plotCorrections, reportCorrections } from "../../../../router/commands/eval/corrections_report.ts";
import { type LosslessResult, reportLossless } from "../../../../router/commands/eval/lossless.ts";
import { EVALUATION_DATA, readLongTexts } from "../../../../router/commands/eval/evaluation_data.ts";
import { runCli } from "../../../support/cli.ts";
import { readFixture } from "../../../support/model_directory.ts";

const BOOKS = ["dracula", "moby-dick", "emma", "nostromo", "treasure-island"];

Deno.test("readLongTexts() joins the windows of a book, and puts the scored rows into the last one", async () => {
  const { books } = await readFixture<{ books: Record<string, { windows: { ids: number[] }[] }> }>(
    "tide-10m/perplexity.json",
  );
  const texts = await readLongTexts(EVALUATION_DATA, { context: 4000, tokens: 2000, books: 5 });
  assert.deepEqual(texts.map(({ book }) => book), BOOKS);
  for (const { book, context, tokens } of texts) {
    assert.deepEqual([context, tokens.length, tokens[0]], [4000, 6001, 0]);
    const windows = books[book]?.windows.map(({ ids }) => ids) ?? [];
    assert.deepEqual([...tokens.subarray(-2256)], windows[2]);
    assert.deepEqual([...tokens.subarray(-4512, -2256)], windows[1]);
    assert.deepEqual([...tokens.subarray(1, -4512)], windows[0]?.slice(-1488));
  }
});

Deno.test("readLongTexts() refuses a text that is longer than the windows of a book", async () => {
  const longest = { context: 27_072 - 8, tokens: 8, books: 1 };
  assert.equal((await readLongTexts(EVALUATION_DATA, longest))[0]?.tokens.length, 27_073);
  await assert.rejects(readLongTexts(EVALUATION_DATA, { ...longest, tokens: 9 }), {
    code: "invalid_request",
    message: "Cannot build a text of dracula: its windows hold 27072 tokens, given a context of 27064 and 9 to decode",
  });
});

const PARTS = [
  { from: 0, to: 2, perplexity: 20, agreement: 1, rowAgreement: 1, logprobError: 0 },
  { from: 2, to: 4, perplexity: 30, agreement: 0.5, rowAgreement: null, logprobError: 0.25 },
];

function figures(budget: number | null, correctEvery: number | null): VariantFigures {
  return {
    budget,
    correctEvery,
    perplexity: 24.4949,
    agreement: 0.75,
    rowAgreement: 2 / 3,
    logprobError: 0.125,
    msPerToken: 4,
    rowMs: 3,
    correctionMs: correctEvery === null ? null : 5,
    rowsReadPerToken: 1000,
    byPosition: PARTS,
  };
}

const FOUND: CorrectionFigures = {
  date: "2026-01-01",
  adapter: "GPU",
  selectLayers: [2, 6],
  context: 100,
  tokens: 4,
  variants: [figures(null, null), figures(64, null), figures(64, 16), figures(256, 16)],
  texts: [{ book: "emma", variants: [] }, { book: "dracula", variants: [] }],
  seconds: 9,
};

Deno.test("reportCorrections() shows every variant, and agreement and perplexity by position", () => {
  const lines = reportCorrections(FOUND);
  assert.ok(
    lines.includes("Held-out text of emma, dracula: 4 known tokens of each, decoded behind a context of 100"),
  );
  assert.ok(lines.includes("| dense | – | 24.495 | 75.0 % | 66.7 % | 0.1250 | 4.00 | 3.00 | – | 1000 |"));
  assert.ok(lines.includes("| sparse 64 | off | 24.495 | 75.0 % | 66.7 % | 0.1250 | 4.00 | 3.00 | – | 1000 |"));
  assert.ok(
    lines.includes("| sparse 256 | every 16 | 24.495 | 75.0 % | 66.7 % | 0.1250 | 4.00 | 3.00 | 5.00 | 1000 |"),
  );
  assert.ok(lines.includes("| agrees with dense, by token behind the context | 0–1 | 2–3 |"));
  assert.ok(lines.includes("| sparse 64, every 16 | 100.0 % | 50.0 % |"));
  assert.ok(lines.includes("| sparse 64, every 16 | 20.00 | 30.00 |"));
});

Deno.test("plotCorrections() draws a line for each variant in both panels: colour by stride, dashes by budget", () => {
  const strokes = [...plotCorrections(FOUND).matchAll(/<polyline .* stroke="(\S+)" stroke-width="2"(.*)\/>/g)]
    .map(([, colour, dashes]) => `${colour}${dashes}`);
  assert.equal(strokes.length, 8);
  assert.deepEqual(strokes.slice(0, 4), strokes.slice(4));
  assert.equal(new Set(strokes).size, 4);
  const [dense, off64, every64, every256] = strokes.map((stroke) => stroke.split(" "));
  assert.deepEqual(dense, ["#000000"]);
  assert.equal(every64?.[0], every256?.[0]);
  assert.notEqual(off64?.[0], every64?.[0]);
  assert.deepEqual(off64?.slice(1), every64?.slice(1));
});

Deno.test("eval refuses to plot without corrections, and texts longer than there are", async () => {
  const plot = await runCli(["eval", "--plot", "x.svg"]);
  assert.equal(plot.code, 2);
  assert.equal(plot.stderr, "Cannot plot: --plot draws what --corrections measures, which is not given\n");
  const long = await runCli(["eval", "--corrections", "--tokens", "30000"]);
  assert.equal(long.code, 2);
  assert.match(long.stderr, /^Cannot build a text of dracula: .* given a context of 1000 and 30000 to decode\n$/);
});

Deno.test("eval --corrections prints all figures as JSON and writes the plot", async () => {
  const plot = await Deno.makeTempFile({ prefix: "tidepool-", suffix: ".svg" });
  try {
    const sample = ["--texts", "2", "--context", "70", "--tokens", "8", "--budgets", "16", "--strides", "3,4"];
    const { code, stdout, stderr } = await runCli(["eval", "--corrections", "--json", "--plot", plot, ...sample]);
    assert.equal(code, 0, stderr);
    const found: CorrectionFigures = JSON.parse(stdout);
    assert.deepEqual(found.texts.map(({ book }) => book), BOOKS.slice(0, 2));
    assert.deepEqual([found.context, found.tokens, found.selectLayers], [70, 8, [2, 6]]);
    for (const variants of [found.variants, ...found.texts.map((text) => text.variants)]) {
      const kinds = variants.map(({ budget, correctEvery }) => [budget, correctEvery]);
      assert.deepEqual(kinds, [[null, null], [16, null], [16, 3], [16, 4]]);
      const [dense, off] = variants;
      assert.deepEqual([dense?.agreement, dense?.logprobError], [1, 0]);
      assert.ok((off?.logprobError ?? 0) > 0.01);
      for (const { byPosition, correctEvery, correctionMs, msPerToken } of variants) {
        assert.deepEqual(byPosition.map(({ from }) => from), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert.equal(correctionMs === null, correctEvery === null);
        assert.ok(msPerToken > 0);
      }
    }
    const svg = await Deno.readTextFile(plot);
    assert.equal(svg.match(/<polyline /g)?.length, 2 * 4);
  } finally {
    await Deno.remove(plot);
  }
});

Deno.test("eval --lossless finds the tokens of dense decoding, and counts what was thrown away for them", async () => {
  const sample = ["--prompts", "1", "--tokens", "24", "--budgets", "16", "--workers", "1"];
  const { code, stdout, stderr } = await runCli(["eval", "--lossless", "--json", ...sample]);
  assert.equal(code, 0, stderr);
  const found: LosslessResult = JSON.parse(stdout);
  assert.deepEqual(found.figures.map(({ workers, budget, sampling }) => [workers, budget, sampling]), [
    [1, 16, "greedy"],
    [1, 16, "seeded"],
  ]);
  for (const figures of found.figures) {
    const { answers, identical, tokens, checked, agreed, rollbacks, dropped } = figures;
    assert.deepEqual([identical, tokens], [answers, 24 * answers]);
    assert.ok(checked > 0 && checked - agreed === rollbacks && dropped >= rollbacks, JSON.stringify(figures));
  }
  assert.ok(found.figures.some(({ rollbacks }) => rollbacks > 0), "nothing was ever wrong: the budget is too large");
  assert.deepEqual(found.seconds.map(({ attention }) => attention), ["dense", "lossless 16"]);
});

Deno.test("reportLossless() shows every group with its figures per correction", () => {
  const counts = { answers: 6, identical: 5, tokens: 60, checked: 40, agreed: 30, rollbacks: 10, dropped: 12 };
  const lines = reportLossless({
    adapter: "GPU",
    prompts: 2,
    tokens: 10,
    seconds: [{ workers: 2, attention: "dense", seconds: 4 }],
    figures: [{ workers: 2, budget: 64, sampling: "seeded", ...counts, corrections: 20, rows: 70 }],
  });
  assert.ok(lines.includes("| 2 | 64 | seeded | 5/6 | 10 | 75.0 % | 12 | 3.00 | 3.50 |"), lines.join("\n"));
  assert.ok(lines.includes("| 2 | dense | 4.0 | 20 |"), lines.join("\n"));
});
