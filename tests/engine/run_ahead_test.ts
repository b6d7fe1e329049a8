/** Steps that are recorded while the one before runs: the same tokens, and failures and overruns that leave no trace. */

import assert from "node:assert/strict";

import { GREEDY } from "../../engine/evaluation/hand_session.ts";
import type { SamplingSettings, SequenceOpening, Span, SparseSettings, Step } from "../../engine/span.ts";
import { engineFixture } from "../support/engine_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = engineFixture({ random: "tiny" }, 16384);

const VOCABULARY = 512;
const SPARSE: SparseSettings = { budget: 64, heads: "kv_head" };
const SEEDED: SamplingSettings = { ...GREEDY, temperature: 0.9, topP: 0.95, seed: 5 };

let index = 1;
let sequence = 1000;

function step(parts: Partial<Step>): Step {
  return { index: index++, open: [], release: [], spans: [], deadlineMs: 60_000, ...parts };
}

function opening(id: number, prompt: number, sampling = SEEDED): SequenceOpening {
  const prefix = { pageOffset: 0, prefixPages: new Uint32Array(), prefixTokens: new Uint32Array() };
  return { sequence: id, sampling, sparse: SPARSE, promptTokens: prompt, audited: false, ...prefix };
}

function prefill(id: number, prompt: Uint32Array, firstPage: number): Span {
  const newPages = Uint32Array.from({ length: 8 }, (_, i) => firstPage + i);
  return { kind: "prefill", sequence: id, from: 0, tokens: prompt, logits: "last", newPages };
}

function row(id: number, from: number, token: number | "sampled"): Span {
  return {
    kind: "decode",
    attention: from % 3 === 0 ? "dense" : "sparse",
    sequence: id,
    from,
    logits: "last",
    newPages: new Uint32Array(),
    ...(token === "sampled" ? { tokens: Uint32Array.of(0), sampled: true } : { tokens: Uint32Array.of(token) }),
  };
}

function prompts(count: number): Uint32Array[] {
  return Array.from({ length: count }, (_, i) => {
    const random = new Random(i);
    return Uint32Array.from({ length: 120 + 50 * i }, () => random.integer(VOCABULARY));
  });
}

/** Tokens of several sequences, with that many steps in flight. */
async function answers(sequences: number, tokens: number, depth: 1 | 2): Promise<number[][]> {
  const { engine } = fixture;
  const started = prompts(sequences).map((prompt, i) => ({ id: sequence++, prompt, page: 8 * i }));
  const first = await engine.run(step({
    open: started.map(({ id, prompt }) => opening(id, prompt.length)),
    spans: started.map(({ id, prompt, page }) => prefill(id, prompt, page)),
  }));
  const drawn = started.map((_, i) => [first.spans[i]?.token ?? NaN]);
  const pending: Promise<void>[] = [];
  for (let at = 0; at < tokens; at++) {
    const spans = started.map(({ id, prompt }, i) =>
      row(id, prompt.length + at, depth === 2 && at > 0 ? "sampled" : drawn[i]?.at(-1) ?? NaN)
    );
    const running = engine.run(step({ spans, ...(depth === 2 && { followed: true }) })).then((result) => {
      result.spans.forEach(({ token }, i) => drawn[i]?.push(token ?? NaN));
    });
    pending.push(running);
    if (pending.length === depth) await pending.shift();
  }
  await Promise.all(pending);
  await engine.run(step({ release: started.map(({ id }) => id) }));
  return drawn;
}

Deno.test("Engine.run() draws the same tokens one step ahead as step by step", async () => {
  for (const sequences of [1, 3]) {
    const expected = await answers(sequences, 40, 1);
    assert.ok(new Set(expected.flat()).size > 10);
    assert.deepEqual(await answers(sequences, 40, 2), expected);
  }
});

Deno.test("Engine.run() discards a row that overran: the next span's `from` is all it takes", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const go = async (overruns: boolean) => {
    const id = sequence++;
    const { spans } = await engine.run(step({ open: [opening(id, prompt.length)], spans: [prefill(id, prompt, 0)] }));
    const at = prompt.length;
    const running = engine.run(step({ spans: [row(id, at, spans[0]?.token ?? NaN)], followed: true }));
    const overrun = overruns ? engine.run(step({ spans: [row(id, at + 1, "sampled")] })) : undefined;
    await Promise.all([running, overrun]);
    const after = await engine.run(step({ spans: [row(id, at + 1, 7)] }));
    await engine.run(step({ release: [id] }));
    return after.spans[0]?.token;
  };
  const OVERRUN = true;
  assert.equal(await go(OVERRUN), await go(!OVERRUN));
});

Deno.test("Engine.run() takes two steps at a time, and refuses drawn tokens that are not there", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const [id, penalised] = [sequence++, sequence++];
  const open = [opening(id, prompt.length), opening(penalised, prompt.length, { ...SEEDED, presencePenalty: 1 })];
  await engine.run(step({ open, spans: [prefill(id, prompt, 0), prefill(penalised, prompt, 8)] }));
  const at = prompt.length;
  await assert.rejects(engine.run(step({ spans: [row(penalised, at, "sampled")] })), /its penalties count tokens/);
  await assert.rejects(engine.run(step({ spans: [row(id, at, "sampled")] })), /which drew none/);
  const two = [
    engine.run(step({ spans: [row(id, at, 1)] })),
    engine.run(step({ spans: [row(id, at + 1, "sampled")] })),
  ];
  await assert.rejects(engine.run(step({ spans: [row(id, at + 2, "sampled")] })), /2 other steps are running/);
  assert.equal((await Promise.all(two)).length, 2);
  const refused = engine.run(step({ spans: [row(id, at + 9, 1)] }));
  const after = engine.run(step({ spans: [row(id, at + 1, "sampled")] }));
  await assert.rejects(refused, /its start .* is beyond/);
  await assert.rejects(after, /which drew none/, "its token was to come from a step that was refused");
  await engine.run(step({ release: [id, penalised] }));
});
