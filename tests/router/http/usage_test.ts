/** What a request cost over its choices, and how corrections and audits look on the wire. */

import assert from "node:assert/strict";
import { sumUsages, usageBody } from "../../../router/http/usage.ts";
import type { AuditUsage, CorrectionUsage, GenerationUsage } from "../../../router/scheduling/generation.ts";
import { USAGE } from "../../support/request_records.ts";

const AUDIT: AuditUsage = { checked: 8, agreed: 6, divergence: 1, measured: 4, firstDivergence: 5 };

function usage(correction: CorrectionUsage | undefined): GenerationUsage {
  return { ...USAGE, attention: { ...USAGE.attention, correction } };
}

function correction(changes: Partial<CorrectionUsage> = {}): CorrectionUsage {
  const counts = { corrections: 2, rows: 10, rollbacks: 1, dropped: 3 };
  return { mode: "lossless", every: "auto", stride: 6, ...counts, audit: AUDIT, ...changes };
}

function attentionBody(of: GenerationUsage): Record<string, unknown> {
  return usageBody({ ...of, reasoningTokens: 0 }).attention as Record<string, unknown>;
}

Deno.test("usageBody() says nothing of corrections that were off, and null where nothing was found", () => {
  const off = attentionBody(usage(undefined));
  assert.ok(!("correction" in off) && !("audit" in off));
  const none = { checked: 0, agreed: 0, divergence: 0, measured: 0, firstDivergence: undefined };
  assert.deepEqual(attentionBody(usage(correction({ audit: none }))).audit, {
    checked: 0,
    agreed: 0,
    agreement: null,
    mean_kl: null,
    first_divergence: null,
    corrections: 2,
  });
});

Deno.test("usageBody() shows what corrections did, audited and lossless", () => {
  const refresh = attentionBody(usage(correction({ mode: "refresh", stride: undefined, audit: undefined })));
  const done = { mode: "refresh", "correct_every": "auto", stride: null, corrections: 2, rows: 10 };
  assert.deepEqual([refresh.correction, refresh.audit], [done, undefined]);
  const lossless = attentionBody(usage(correction({ every: 6 })));
  assert.deepEqual(lossless.correction, {
    mode: "lossless",
    correct_every: 6,
    stride: 6,
    corrections: 2,
    rows: 10,
    rollbacks: 1,
    dropped_drafts: 3,
  });
  assert.deepEqual(lossless.audit, {
    checked: 8,
    agreed: 6,
    agreement: 0.75,
    mean_kl: 0.25,
    first_divergence: 5,
    corrections: 2,
  });
});

Deno.test("sumUsages() adds up the corrections of all choices, and says whose tokens are listed", () => {
  const token = { choice: 0, index: 5, token: 7, dense: 8, divergence: undefined };
  const listed = correction({ audit: { ...AUDIT, firstDivergence: 2, tokens: [token] } });
  const { attention } = sumUsages([usage(correction()), usage(listed)], 2);
  assert.deepEqual(attention.correction, {
    ...correction(),
    corrections: 4,
    rows: 20,
    rollbacks: 2,
    dropped: 6,
    audit: {
      checked: 16,
      agreed: 12,
      divergence: 2,
      measured: 8,
      firstDivergence: 2,
      tokens: [{ ...token, choice: 1 }],
    },
  });
  const { audit } = attentionBody(sumUsages([usage(listed)], 1)) as { audit: { tokens: unknown } };
  assert.deepEqual(audit.tokens, [{ choice: 0, index: 5, token: 7, dense_token: 8, agreed: false, kl: null }]);
});

Deno.test("sumUsages() weighs what choices read by the tokens that they decoded, which the first of each is not", () => {
  const choice = (completionTokens: number, rowsReadPerToken: number): GenerationUsage => ({
    ...USAGE,
    completionTokens,
    attention: { ...USAGE.attention, rowsReadPerToken },
  });
  const read = (...choices: GenerationUsage[]) => sumUsages(choices, choices.length).attention.rowsReadPerToken;
  assert.equal(read(choice(1, 0), choice(5, 900)), 900);
  assert.equal(read(choice(2, 300), choice(4, 700)), 600);
  assert.equal(read(choice(1, 0)), 0);
});
