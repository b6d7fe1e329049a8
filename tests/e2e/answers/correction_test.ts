/**
 * Corrections of a real service: lossless answers are those of dense decoding, by one worker and by two, greedy and
 * seeded; audits say how far sparse ones were off; and nothing is left of drafts that were not released.
 */

import assert from "node:assert/strict";
import { LiveService } from "../../support/live_service.ts";
import { aboutText, needle } from "../../support/needles.ts";
import type { UsageBody } from "../../support/sse_reader.ts";

const CASES = ["n300-00", "n300-03", "n300-07", "n300-11"];
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

async function ask(live: LiveService, id: string, fields: Readonly<Record<string, unknown>>): Promise<Chat> {
  const { prompt_text: text, question } = await needle(id);
  const { status, body } = await live.ask<Chat>("/v1/chat/completions", {
    messages: aboutText(text, question),
    max_tokens: TOKENS,
    ignore_eos: true,
    logprobs: true,
    top_logprobs: 2,
    ...fields,
  });
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

/** Of lossless answers. */
const LOSSLESS_TOKENS = 32;

// Two workers on two cores take three times as long: half of the cases, one drawn greedily and one by a seed.
for (const [workers, cases] of [[1, CASES], [2, CASES.slice(0, 2)]] as const) {
  Deno.test(`lossless answers are those of dense decoding to the last log-probability, by ${workers} workers`, async () => {
    await using live = await LiveService.start({ kvTokens: 4096, workers, shareGpu: true });
    // In company: what a row gives does not depend on it, and a batch takes less time than its rows one by one.
    const rollbacks = await Promise.all(cases.map(async (id, i) => {
      const drawn = i % 2 === 0 ? { temperature: 0 } : { temperature: 1, seed: i, presence_penalty: 0.5 };
      const sampling = { ...drawn, "max_tokens": LOSSLESS_TOKENS };
      const dense = await ask(live, id, { ...sampling, attention: { mode: "dense" } });
      const lossless = await ask(live, id, { ...sampling, attention: LOSSLESS });
      assert.deepEqual(lossless.choices, dense.choices, id);
      const { audit, correction } = lossless.usage.attention;
      assert.equal(lossless.usage.completion_tokens, LOSSLESS_TOKENS);
      assert.ok(audit !== undefined && audit.checked > 0 && audit.agreed <= audit.checked);
      return correction?.rollbacks ?? 0;
    }));
    const all = rollbacks.reduce((sum, count) => sum + count, 0);
    assert.ok(all >= cases.length, `${all} roll-backs: the budget is too large to test anything`);
    await live.idle(5000);
  });
}

Deno.test("audits, stop strings and clients that leave", async (t) => {
  await using live = await LiveService.start({ kvTokens: 4096 });
  const [first = "", second = ""] = CASES;

  await t.step("an audit leaves the answer as it is and says where full attention draws other tokens", async () => {
    const sparse = { mode: "sparse", budget: 16, "correct_every": 6 };
    const drawn = { temperature: 1, seed: 4 };
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
    const metric = await live.metric("tidepool_audit_tokens_checked_total");
    assert.equal(metric, 45);
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
    await live.idle(5000);
  });

  await t.step("a client that leaves in the middle of drafts leaves no page behind", async () => {
    const { prompt_text: text, question } = await needle(first);
    const stream = await live.stream("/v1/chat/completions", {
      messages: aboutText(text, question),
      max_tokens: 2000,
      ignore_eos: true,
      temperature: 0,
      attention: { ...LOSSLESS, correct_every: 16 },
    });
    await stream.until(() => stream.text().length > 20);
    await stream.leave();
    await live.idle(5000);
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
