/**
 * Corrections of a real service: lossless answers are those of dense decoding, by one worker and by two, greedy and
 * seeded; audits say how far sparse ones were off; and nothing is left of drafts that were not released.
 */

import assert from "node:assert/strict";
import { gateCases } from "../../support/gate_cases.ts";
import { LiveService } from "../../support/live_service.ts";
import { aboutText, needle } from "../../support/needles.ts";
import type { UsageBody } from "../../support/sse_reader.ts";

/** Texts on which a budget of 16 soon goes astray. */
const CASES = gateCases(["n300-00", "n300-03"], ["n300-00", "n300-03", "n300-07", "n300-11"]);
const TOKENS = 60;

interface Chat {
  readonly choices: readonly {
    readonly message: { readonly content: string };
    readonly finish_reason: string;
    readonly stop_reason: string | null;
    readonly logprobs: { readonly content: readonly { readonly logprob: number }[] } | null;
  }[];
  readonly usage: UsageBody & { readonly attention: { readonly audit?: Audit; readonly correction?: Correction } };
}

interface Audit {
  readonly checked: number;
  readonly agreed: number;
  readonly agreement: number;
  readonly "mean_kl": number;
  readonly "first_divergence": number | null;
  readonly corrections: number;
  readonly tokens?: readonly { readonly index: number; readonly agreed: boolean; readonly kl: number | null }[];
}

interface Correction {
  readonly mode: string;
  readonly rollbacks: number;
  readonly "dropped_drafts": number;
}

/** A budget so small that sparse decoding goes astray again and again. */
const LOSSLESS = { mode: "sparse", budget: 16, correction: "lossless" };

function needles(ids: readonly string[]): Promise<Question[]> {
  return Promise.all(ids.map(aboutNeedle));
}

/** A request, as far as the cases differ. */
interface Question {
  readonly path: string;
  readonly body: object;
}

/** A needle in a text, for the embedded model. */
async function aboutNeedle(id: string): Promise<Question> {
  const { prompt_text: text, question } = await needle(id);
  return {
    path: "/v1/chat/completions",
    body: { messages: aboutText(text, question), logprobs: true, "top_logprobs": 2 },
  };
}

/** Any tokens, for random weights. */
function aboutTokens(salt: number): Question {
  const prompt = Array.from({ length: 200 }, (_, i) => 10 + (7 * i + (i >> 3) * 31 + salt) % 480);
  return { path: "/v1/completions", body: { prompt, logprobs: 2 } };
}

async function ask(
  live: LiveService,
  { path, body: question }: Question,
  fields: Readonly<Record<string, unknown>>,
): Promise<Chat> {
  const { status, body } = await live.ask<Chat>(path, {
    ...question,
    max_tokens: TOKENS,
    ignore_eos: true,
    ...fields,
  });
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

/** Tokens that audits have checked, as the service counts. */
const CHECKED = "tidepool_audit_tokens_checked_total";

/** Of lossless answers. */
const LOSSLESS_TOKENS = 32;

/** Asks each case densely and losslessly, in company: what a row gives does not depend on it, and a batch takes less time. */
async function assertLossless(live: LiveService, cases: readonly Question[]): Promise<void> {
  const rollbacks = await Promise.all(cases.map(async (question, i) => {
    const drawn = i % 2 === 0 ? { temperature: 0 } : { temperature: 1, seed: i, presence_penalty: 0.5 };
    const sampling = { ...drawn, "max_tokens": LOSSLESS_TOKENS };
    const dense = await ask(live, question, { ...sampling, attention: { mode: "dense" } });
    const lossless = await ask(live, question, { ...sampling, attention: LOSSLESS });
    assert.deepEqual(lossless.choices, dense.choices, JSON.stringify(question));
    const { audit, correction } = lossless.usage.attention;
    assert.equal(lossless.usage.completion_tokens, LOSSLESS_TOKENS);
    assert.ok(audit !== undefined && audit.checked > 0 && audit.agreed <= audit.checked);
    return correction?.rollbacks ?? 0;
  }));
  const all = rollbacks.reduce((sum, count) => sum + count, 0);
  assert.ok(all >= cases.length, `${all} roll-backs: the budget is too large to test anything`);
  await live.idle(30_000);
}

/** A model, and what it is asked. */
interface Compared {
  readonly random?: string;
  readonly questions: readonly Question[];
}

Deno.test("two workers answer losslessly as they do densely, to the last log-probability", async () => {
  // The embedded model takes five times as long as random weights of the smallest shape.
  const tiny = { random: "tiny", questions: [1, 2].map(aboutTokens) };
  const { questions, ...model } = gateCases<Compared>(tiny, { questions: await needles(CASES.slice(0, 2)) });
  await using live = await LiveService.start({ ...model, kvTokens: 1024, workers: 2, shareGpu: true });
  // One is drawn greedily, and one by a seed.
  await assertLossless(live, questions);
});

Deno.test("one worker: lossless answers, audits, stop strings and clients that leave", async (t) => {
  await using live = await LiveService.start({ kvTokens: 4096 });
  const questions = await needles(CASES);
  const [first, second] = questions;
  assert.ok(first !== undefined && second !== undefined);

  await t.step("lossless answers are those of dense decoding to the last log-probability", async () => {
    await assertLossless(live, questions);
  });

  await t.step("an audit leaves the answer as it is and says where full attention draws other tokens", async () => {
    const sparse = { mode: "sparse", budget: 16, "correct_every": 6 };
    const drawn = { temperature: 1, seed: 4 };
    const before = await live.metric(CHECKED);
    const audited = await ask(live, first, {
      ...drawn,
      attention: { ...sparse, correction: "audit", audit_tokens: true },
    });
    const refreshed = await ask(live, first, { ...drawn, attention: { ...sparse, correction: "refresh" } });
    assert.deepEqual(audited.choices, refreshed.choices);
    const audit = audited.usage.attention.audit ?? assert.fail("no audit");
    // Of 59 decoded tokens every sixth comes from a correction: 9 whole rounds of 5 drafts.
    assert.deepEqual([audit.corrections, audit.checked], [9, 45]);
    assert.ok(audit.agreed < audit.checked && audit.mean_kl > 0, JSON.stringify(audit));
    assert.equal(audit.agreement, audit.agreed / audit.checked);
    const firstOff = audit.tokens?.find((token) => !token.agreed);
    assert.equal(firstOff?.index, audit.first_divergence);
    assert.equal(audit.tokens?.length, 45);
    assert.ok(audit.tokens?.every(({ kl }) => kl !== null && kl >= 0));
    assert.equal(await live.metric(CHECKED) - before, 45);
  });

  await t.step("a stop string in the middle of drafts ends the answer where dense decoding does", async () => {
    const plain = await ask(live, second, { temperature: 0, attention: { mode: "dense" } });
    const text = plain.choices[0]?.message.content ?? "";
    const stop = text.slice(40, 46);
    const [dense, lossless] = [
      await ask(live, second, { temperature: 0, stop, attention: { mode: "dense" } }),
      await ask(live, second, { temperature: 0, stop, attention: { ...LOSSLESS, correct_every: 16 } }),
    ];
    assert.deepEqual(lossless.choices, dense.choices);
    assert.deepEqual([dense.choices[0]?.finish_reason, dense.choices[0]?.stop_reason], ["stop", stop]);
    assert.equal(lossless.usage.completion_tokens, dense.usage.completion_tokens);
    await live.idle(30_000);
  });

  await t.step("a client that leaves in the middle of drafts leaves no page behind", async () => {
    const stream = await live.stream(first.path, {
      ...first.body,
      max_tokens: 2000,
      ignore_eos: true,
      temperature: 0,
      attention: { ...LOSSLESS, correct_every: 16 },
    });
    await stream.until(() => stream.text().length > 20);
    await stream.leave();
    await live.idle(30_000);
  });

  await t.step("max_tokens ends lossless answers to the token, whatever the stride", async () => {
    const dense = await ask(live, second, { temperature: 0, attention: { mode: "dense" } });
    for (const tokens of [1, 2, 17]) {
      const lossless = await ask(live, second, {
        max_tokens: tokens,
        temperature: 0,
        attention: { ...LOSSLESS, correct_every: 9 },
      });
      assert.equal(lossless.usage.completion_tokens, tokens);
      const logprobs = lossless.choices[0]?.logprobs?.content;
      assert.deepEqual(logprobs, dense.choices[0]?.logprobs?.content.slice(0, tokens));
    }
  });
});
