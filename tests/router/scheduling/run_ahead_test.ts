/** Steps that are planned while the one before runs: which, and what becomes of rows that overran. */

import assert from "node:assert/strict";

import type { SamplingSettings, Step } from "../../../engine/span.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, GREEDY, promptOf } from "../../support/generation_request.ts";
import { until } from "../../support/until.ts";
import { assertAlone, withScheduler } from "../../support/with_scheduler.ts";

const AHEAD = { stepsInFlight: 2 } as const;

Deno.test("Scheduler decodes one step ahead up to the length that was asked for, and not a row further", async () => {
  await withScheduler(AHEAD, async (scheduler, group) => {
    const request = generationRequest({ promptTokens: promptOf(70), maxTokens: 130 });
    await assertAlone(scheduler, request);
    const sampled = group.steps.filter(({ spans }) => spans[0]?.sampled);
    // The prompt's own token is known; the length is too.
    assert.equal(sampled.length, 128);
    assert.equal(Math.max(...group.steps.flatMap(({ spans }) => spans.map(({ from }) => from))), 70 + 128);
    const told = group.steps.filter(({ spans }) => spans[0]?.kind === "decode" && !spans[0].sampled);
    assert.ok(told.every(({ followed }) => followed), "the first decode step says that another follows");
  });
});

Deno.test("Scheduler discards the one row after a stop token: no token, no usage, no cached page of it", async () => {
  const usages: unknown[] = [];
  for (const stepsInFlight of [1, 2]) {
    await withScheduler({ stepsInFlight }, async (scheduler, group) => {
      const asked = generationRequest({ promptTokens: promptOf(50), maxTokens: 100 });
      const stop = runAlone(asked).tokens[20] ?? NaN;
      const request = { ...asked, stopTokens: [stop] };
      const generation = scheduler.generate(request);
      const { tokens, reason } = await collect(generation);
      assert.deepEqual({ tokens, reason }, runAlone(request));
      usages.push(generation.usage());
      await until(() => group.open === 0);
      const rows = group.steps.filter(({ spans }) => spans[0]?.kind === "decode").length;
      assert.equal(rows, tokens.length - 1 + (stepsInFlight - 1));
    });
  }
  assert.deepEqual(usages[0], usages[1]);
});

const SETTINGS: Readonly<Record<string, Partial<SamplingSettings>>> = {
  "a seed": { temperature: 1, seed: 99 },
  "penalties": { repetitionPenalty: 1.2, presencePenalty: 0.1, frequencyPenalty: 0.5 },
  "log-probabilities": { topLogprobs: 20 },
  "biases": { logitBias: [[3, 5]] },
  "a minimum length": { minTokens: 10, suppressed: [3] },
};

for (const [name, changes] of Object.entries(SETTINGS)) {
  Deno.test(`Scheduler sends the next step of ${name} before the one before has ended, with the same answer`, async () => {
    const request = generationRequest({
      promptTokens: promptOf(40),
      maxTokens: 30,
      sampling: { ...GREEDY, ...changes },
    });
    const outcomes: unknown[] = [];
    for (const stepsInFlight of [1, 2]) {
      await withScheduler({ stepsInFlight }, async (scheduler, group) => {
        const sent: (readonly [step: Step, pending: number])[] = [];
        let pending = 0;
        const run = group.run.bind(group);
        group.run = async (step, ...others) => {
          sent.push([step, pending++]);
          return await run(step, ...others).finally(() => pending--);
        };
        outcomes.push(await collect(scheduler.generate(request)));
        const sampled = sent.filter(([{ spans }]) => spans[0]?.sampled);
        assert.equal(sampled.length, stepsInFlight === 1 ? 0 : 28);
        assert.ok(sampled.every(([, pending]) => pending === 1), "each was sent while one was computed");
      });
    }
    assert.deepEqual(outcomes[1], outcomes[0]);
  });
}

const attention = (mode: "audit" | "lossless" | "refresh", every: number) => ({
  mode: "sparse" as const,
  budget: undefined,
  heads: "kv_head" as const,
  correction: { mode, every, perToken: false },
});

Deno.test("Scheduler does not run ahead of audits", async () => {
  await withScheduler(AHEAD, async (scheduler, group) => {
    const request = generationRequest({ promptTokens: promptOf(40), maxTokens: 30, attention: attention("audit", 4) });
    await assertAlone(scheduler, request);
    assert.ok(group.steps.length > 25);
    assert.ok(!group.steps.some(({ spans }) => spans.some(({ sampled }) => sampled)));
  });
});

for (const every of [2, 4, 7]) {
  Deno.test(`Scheduler drafts and verifies ahead in lossless mode, however drafts err: every ${every}`, async () => {
    const errs = (position: number) => position % 5 === 0 || position % 7 === 0;
    await withScheduler({ ...AHEAD, errs }, async (scheduler, group) => {
      const asked = { promptTokens: promptOf(90), maxTokens: 60, attention: attention("lossless", every) };
      await assertAlone(scheduler, generationRequest(asked));
      const spans = group.steps.flatMap((step) => step.spans);
      const drafts = spans.filter((span) => span.kind === "decode" && span.attention === "sparse");
      assert.equal(drafts.some(({ sampled }) => sampled), every > 2);
      const verifications = spans.filter(({ logits }) => logits === "audit");
      // The last row of all may come after a draft that was overruled: nothing runs then that it could be ahead of.
      const waited = verifications.filter(({ sampled, tokens }) => !sampled && tokens.length > 1);
      assert.ok(verifications.length > 60 / every);
      assert.deepEqual(waited.map(({ from }) => from), []);
      const next = spans.filter((_, i) => spans[i - 1]?.logits === "audit");
      assert.ok(next.every(({ sampled }) => !sampled), "so many err that what follows a verification is known to it");
      // Every token of every answer may be the last.
      for (const place of [1, 2, 3, 5, 8, 13, 21]) {
        const stop = runAlone(generationRequest(asked)).tokens[place] ?? NaN;
        await assertAlone(scheduler, generationRequest({ ...asked, stopTokens: [stop] }));
      }
      await until(() => group.open === 0);
    });
  });
}

Deno.test("Scheduler goes on ahead of verifications that mostly agree, and drops the row after one that does not", async () => {
  const errs = (position: number) => position === 150;
  await withScheduler({ ...AHEAD, errs }, async (scheduler, group) => {
    const asked = { promptTokens: promptOf(90), maxTokens: 120, attention: attention("lossless", 4) };
    const generation = scheduler.generate(generationRequest(asked));
    const { tokens, reason } = await collect(generation);
    assert.deepEqual({ tokens, reason }, runAlone(generationRequest(asked)));
    const spans = group.steps.flatMap((step) => step.spans);
    const isAhead = spans.map(({ sampled }, i) => sampled === true && spans[i - 1]?.logits === "audit");
    assert.ok(isAhead.filter(Boolean).length > 20);
    const overruled = spans.findIndex(({ from }, i) => isAhead[i] && spans[i + 1]?.from === 151 && from > 151);
    assert.ok(overruled > 0, "the row after the divergence is computed again");
    assert.equal(generation.usage().attention.correction?.rollbacks, 1);
  });
});

Deno.test("Scheduler corrects ahead, several together, and each has the usage that it has step by step", async () => {
  const outcomes: unknown[] = [];
  for (const stepsInFlight of [1, 2]) {
    await withScheduler({ stepsInFlight }, async (scheduler, group) => {
      const generations = [4, 6, 9].map((every, i) =>
        scheduler.generate(generationRequest({
          promptTokens: promptOf(40 + i, i),
          maxTokens: 60,
          attention: attention("refresh", every),
        }))
      );
      const answers = await Promise.all(generations.map((generation) => collect(generation)));
      outcomes.push([answers, generations.map((generation) => generation.usage())]);
      const corrections = group.steps.flatMap(({ spans }) => spans.filter(({ tokens }) => tokens.length > 1))
        .filter(({ kind }) => kind === "decode");
      assert.ok(corrections.length > 20, `${corrections.length}`);
      const ahead = corrections.filter(({ sampled }) => sampled).length;
      assert.ok(stepsInFlight === 1 ? ahead === 0 : ahead > 15, `${ahead} of ${corrections.length}`);
    });
  }
  assert.deepEqual(outcomes[1], outcomes[0]);
});

Deno.test("Scheduler waits for the tokens that penalties and masks of a verification count", async () => {
  await withScheduler(AHEAD, async (scheduler, group) => {
    const sampling = { ...GREEDY, presencePenalty: 0.5 };
    const asked = { promptTokens: promptOf(40), maxTokens: 30, attention: attention("lossless", 4), sampling };
    await assertAlone(scheduler, generationRequest(asked));
    const spans = group.steps.flatMap((step) => step.spans);
    assert.ok(spans.some(({ sampled }) => sampled));
    assert.ok(!spans.some(({ logits, sampled }) => logits === "audit" && sampled));
  });
});

Deno.test("Scheduler takes in others between two steps that run ahead, and goes on ahead with them", async () => {
  await withScheduler(AHEAD, async (scheduler, group) => {
    const requests = [0, 1, 2].map((i) => generationRequest({ promptTokens: promptOf(30 + i, i), maxTokens: 60 }));
    await Promise.all(requests.map(async (request, i) => {
      while (group.steps.length < 15 * i) await new Promise((resolve) => setImmediate(resolve));
      await assertAlone(scheduler, request);
    }));
    assert.ok(group.steps.some(({ spans }) => spans.length === 3 && spans.every(({ sampled }) => sampled)));
  });
});

Deno.test("Scheduler survives the loss of two steps at once", async () => {
  await withScheduler(AHEAD, async (scheduler, group) => {
    const request = generationRequest({ promptTokens: promptOf(30), maxTokens: 60 });
    const answer = collect(scheduler.generate(request));
    while (group.steps.length < 10) await new Promise((resolve) => setImmediate(resolve));
    group.break();
    await new Promise((resolve) => setImmediate(resolve));
    group.recover();
    const { tokens, reason } = await answer;
    assert.deepEqual({ tokens, reason }, runAlone(request));
  });
});
