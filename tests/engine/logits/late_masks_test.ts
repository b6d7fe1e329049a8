/** Masks that come while their step is computed: the same draws, one step ahead too, and failures that leave no trace. */

import assert from "node:assert/strict";

import { GREEDY, type HandSpan, type Session } from "../../../engine/evaluation/hand_session.ts";
import type { LateMasks, SamplingSettings, StepResult } from "../../../engine/span.ts";
import { maskWords } from "../../../kernels/logits/mask_logits.ts";
import { engineFixture } from "../../support/engine_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = engineFixture({ random: "tiny" }, 4096);
const VOCABULARY = 512;
const WORDS = maskWords(VOCABULARY);
const SEEDED: SamplingSettings = { ...GREEDY, temperature: 1, seed: 7 };
const PROMPT = Uint32Array.from({ length: 70 }, (_, i) => (i * 37) % VOCABULARY);

let index = 1_000_000;

/** Forbids half of the tokens, which half depends on the token before. */
function maskAfter(token: number): Uint32Array {
  const random = new Random(token);
  return random.integers(WORDS, 2 ** 32);
}

function allows(mask: Uint32Array, token: number): boolean {
  return ((mask[token >> 5] ?? 0) >>> (token & 31) & 1) === 1;
}

/** Their tables are written while a masked draw may be held back. */
const BIASED: SamplingSettings = { ...SEEDED, logitBias: Array.from({ length: 8 }, (_, token) => [token, 9] as const) };
const PENALIZED: SamplingSettings = { ...BIASED, presencePenalty: 2, frequencyPenalty: 2 };

function open(sampling = SEEDED): Session {
  return fixture.host.open({ sampling, promptTokens: PROMPT.length });
}

function run(plans: readonly ReturnType<Session["plan"]>[], late?: LateMasks, followed = false): Promise<StepResult> {
  const all = { open: plans.flatMap(({ open }) => open), spans: plans.flatMap(({ spans }) => spans), release: [] };
  const step = { ...all, index: index++, deadlineMs: 60_000, ...(followed && { followed: true as const }) };
  return fixture.engine.run(step, late);
}

const prompt: HandSpan = { kind: "prefill", tokens: PROMPT, logits: "last" };

function row(token: number): HandSpan {
  return { kind: "decode", attention: "dense", tokens: Uint32Array.of(token), logits: "last" };
}

/** A masked answer whose masks are carried, follow, or follow steps that run one ahead. */
async function answer(way: "carried" | "follow" | "ahead", sampling = SEEDED, tokens = 24): Promise<number[]> {
  const session = open(sampling);
  try {
    const drawn = [(await session.run(prompt)).token ?? -1];
    let before: Promise<unknown> = Promise.resolve();
    for (let i = 0; i < tokens; i++) {
      const known = Promise.withResolvers<number>();
      // The mask of a row that runs ahead is made when the row before has drawn.
      const late = before.then(() => maskAfter(drawn.at(-1) ?? -1));
      if (way === "carried") {
        drawn.push((await session.run({ ...row(drawn.at(-1) ?? -1), masks: await late })).token ?? -1);
        continue;
      }
      const isAhead = way === "ahead" && i > 0;
      const span = { ...row(isAhead ? 0 : drawn.at(-1) ?? -1), masksFollow: true as const };
      const plan = session.plan(isAhead ? { ...span, sampled: true } : span);
      const result = run([plan], late, way === "ahead").then(({ spans }) => {
        drawn.push(spans[0]?.token ?? -1);
        known.resolve(0);
      });
      if (way === "follow") await result;
      else await before;
      before = Promise.all([result, known.promise]);
    }
    await before;
    return drawn;
  } finally {
    await session.close();
  }
}

Deno.test("Engine.run() draws with masks that follow as with those it was given, one step ahead too", async () => {
  const expected = await answer("carried");
  expected.slice(1).forEach((token, i) => assert.ok(allows(maskAfter(expected[i] ?? -1), token), `token ${i}`));
  assert.deepEqual(await answer("follow"), expected);
  assert.deepEqual(await answer("ahead"), expected);
});

Deno.test("Engine.run() counts tokens for penalties as if masks had not followed, one step ahead too", async () => {
  const expected = await answer("carried", PENALIZED);
  assert.notDeepEqual(expected, await answer("carried", BIASED), "penalties change something");
  assert.deepEqual(await answer("ahead", PENALIZED), expected);
});

Deno.test("Engine.run() gives each span the mask that follows it, whatever batch it is in", async () => {
  const [first, second, third] = [open(), open(), open()];
  try {
    await first.run(prompt);
    await second.run(prompt);
    const one = (token: number) => {
      const mask = new Uint32Array(WORDS);
      mask[token >> 5] = 1 << (token & 31);
      return mask;
    };
    const masks = Promise.resolve(Uint32Array.from([...one(77), ...one(300)]));
    // Rows of a prompt are computed before or after those that decode, not between them.
    const { spans } = await run([
      third.plan({ ...prompt, masksFollow: true }),
      first.plan({ ...row(5), masks: one(9) }),
      second.plan({ ...row(6), masksFollow: true }),
    ], masks);
    assert.deepEqual(spans.map(({ token }) => token), [77, 9, 300]);
  } finally {
    for (const session of [first, second, third]) await session.close();
  }
});

Deno.test("Engine.run() fails a step whose masks do not come or do not fit, and goes on", async () => {
  const session = open();
  try {
    const { token = -1 } = await session.run(prompt);
    const from = PROMPT.length;
    const following = { ...row(token), from, masksFollow: true as const };
    await assert.rejects(run([session.plan(following)], Promise.reject(new Error("no masks"))), /no masks/);
    const short = Promise.resolve(new Uint32Array(WORDS - 1));
    await assert.rejects(run([session.plan(following)], short), /its late masks have 15 words, not 16/);
    await assert.rejects(run([session.plan({ ...following, logits: "none" })]), /it does not draw one token/);
    const both = { ...following, masks: new Uint32Array(WORDS) };
    await assert.rejects(run([session.plan(both)]), /its mask follows, but it has masks/);
    const mask = maskAfter(token);
    const { spans } = await run([session.plan(following)], Promise.resolve(mask));
    assert.ok(allows(mask, spans[0]?.token ?? -1));
  } finally {
    await session.close();
  }
});
