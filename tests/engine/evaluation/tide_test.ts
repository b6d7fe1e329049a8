/** The embedded model against its known answers: greedy conversations, needles, perplexity. Depends on its weights. */

import assert from "node:assert/strict";

import { greedyMatches } from "../../../engine/evaluation/greedy.ts";
import { loadTextModel, type NeedleVariant, parseNeedles, runNeedle } from "../../../engine/evaluation/needles.ts";
import { windowNll } from "../../../engine/evaluation/perplexity.ts";
import { engineFixture } from "../../support/engine_fixture.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { FIXTURES, readFixture, TIDE } from "../../support/model_directory.ts";

const fixture = engineFixture({ directory: TIDE }, 4096);

interface Conversation {
  readonly id: string;
  readonly "prompt_ids": readonly number[];
  readonly "answer_ids": readonly number[];
}

interface Perplexity {
  readonly books: Readonly<
    Record<string, {
      readonly windows: readonly { readonly ids: readonly number[] }[];
      readonly contexts: { readonly "512": { readonly nll: readonly number[] } };
    }>
  >;
}

Deno.test("greedyMatches() finds the recorded answers of the embedded model", async () => {
  const file = await readFixture<Conversation[]>("tide-10m/greedy.json");
  const shortest = file.sort((a, b) => a.answer_ids.length - b.answer_ids.length)
    .slice(0, gateCases(2, 4));
  for (const { id, prompt_ids: prompt, answer_ids: answer } of shortest) {
    const known = { id, prompt: Uint32Array.from(prompt), answer: Uint32Array.from(answer) };
    assert.ok(await greedyMatches(fixture.host, known, fixture.engine.config.eosTokens), id);
    const other = { ...known, answer: known.answer.map((token, i) => (i === 1 ? token + 1 : token)) };
    assert.ok(!await greedyMatches(fixture.host, other, fixture.engine.config.eosTokens), id);
  }
});

const VARIANTS: readonly NeedleVariant[] = [
  { name: "dense", sparse: undefined, questionDecoded: false },
  { name: "sparse", sparse: { budget: 64, heads: "kv_head" }, questionDecoded: true },
];

const NEEDLES = gateCases(3, 5);

Deno.test("runNeedle() finds needles in 300 tokens, dense and with 64 positions", async () => {
  assert.deepEqual(fixture.engine.info.selectLayers, [2, 6]);
  const model = await loadTextModel(TIDE);
  const needles = parseNeedles(await Deno.readTextFile(`${FIXTURES}tide-10m/needles.jsonl`))
    .filter(({ text }) => text.length < 1500).slice(0, NEEDLES);
  assert.equal(needles.length, NEEDLES);
  const stop = fixture.engine.config.eosTokens;
  const outcomes = [];
  for (const needle of needles) {
    outcomes.push(...await runNeedle(fixture.host, model, { needle, variants: VARIANTS, stop }));
  }
  for (const { name } of VARIANTS) {
    const own = outcomes.filter(({ variant }) => variant === name);
    const right = own.filter(({ correct }) => correct).length;
    // The reference itself answers 19 of 20 at this length.
    assert.ok(right >= NEEDLES - 1, `${name}: ${right} of ${NEEDLES}; ${own.map(({ given }) => given).join(" | ")}`);
  }
});

Deno.test("windowNll() gives the reference's likelihood within 1 %", async () => {
  const { books } = await readFixture<Perplexity>("tide-10m/perplexity.json");
  const [book] = Object.values(books);
  const ids = book?.windows[0]?.ids ?? [];
  const window = { tokens: Uint32Array.from([0, ...ids.slice(0, 512 + 255)]), context: 512 };
  const expected = book?.contexts["512"].nll[0] ?? NaN;
  const dense = await windowNll(fixture.host, window, undefined);
  assert.ok(Math.abs(dense / expected - 1) < 0.01, `${dense}, expected ${expected}`);
});

Deno.test("windowNll() decodes row by row to the likelihood of dense rows when the budget holds them all", async () => {
  const { books } = await readFixture<Perplexity>("tide-10m/perplexity.json");
  const ids = Object.values(books)[0]?.windows[0]?.ids ?? [];
  const window = { tokens: Uint32Array.from([0, ...ids.slice(0, 129)]), context: 110 };
  const dense = await windowNll(fixture.host, window, undefined);
  const decoded = await windowNll(fixture.host, window, { budget: 1000, heads: "kv_head" });
  assert.ok(Math.abs(decoded - dense) < 0.01, `${decoded}, dense ${dense}`);
  const sparse = await windowNll(fixture.host, window, { budget: 16, heads: "kv_head" });
  assert.ok(Math.abs(sparse - dense) > 0.01, `${sparse}, dense ${dense}`);
});
