/** What corrections do to steps, tokens, usage and pages, on a group whose sparse rows err where a test says so. */

import assert from "node:assert/strict";
import type { Span } from "../../../engine/span.ts";
import type { CorrectionReport } from "../../../router/scheduling/correction.ts";
import type { CorrectionRequest, GenerationRequest } from "../../../router/scheduling/generation.ts";
import type { FakeGroup } from "../../support/fake_group.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { until } from "../../support/until.ts";
import { withScheduler } from "../../support/with_scheduler.ts";

/** A sparse request; every row after the prompt is sparse, as the budget is 16. */
function request(
  correction: Partial<CorrectionRequest>,
  changes: Partial<GenerationRequest> = {},
): GenerationRequest {
  const settings = { mode: "refresh", every: "auto", perToken: false, ...correction } as const;
  const attention = { mode: "sparse", budget: 16, heads: "kv_head", correction: settings } as const;
  return generationRequest({ promptTokens: promptOf(40), maxTokens: 40, ...changes, attention });
}

/** Spans after the prompt, in words. */
function spansOf(group: FakeGroup): string[] {
  return group.steps.flatMap(({ spans }) => spans).filter((span) => span.kind === "decode").map(shown);
}

function shown(span: Span): string {
  const attention = span.kind === "decode" ? span.attention : span.kind;
  return `${attention} ${span.from}+${span.tokens.length} ${span.logits}`;
}

const errsAt = (...positions: readonly number[]) => (position: number) => positions.includes(position);

Deno.test("Scheduler makes every N-th decode step a correction of N rows that takes the newest token along", () =>
  withScheduler({}, async (scheduler, group) => {
    const { tokens } = await collect(scheduler.generate(request({ every: 4 }, { maxTokens: 10 })));
    assert.equal(tokens.length, 10);
    assert.deepEqual(spansOf(group), [
      ...["sparse 40+1 last", "sparse 41+1 last", "sparse 42+1 last", "dense 40+4 last"],
      ...["sparse 44+1 last", "sparse 45+1 last", "sparse 46+1 last", "dense 44+4 last"],
      "sparse 48+1 last",
    ]);
  }));

Deno.test("Scheduler decodes densely with a stride of one, and never corrects when that is off", () =>
  withScheduler({}, async (scheduler, group) => {
    await collect(scheduler.generate(request({ every: 1 }, { maxTokens: 4 })));
    assert.deepEqual(spansOf(group), ["dense 40+1 last", "dense 41+1 last", "dense 42+1 last"]);
    const off = scheduler.generate(request({ mode: "off" }, { maxTokens: 200 }));
    await collect(off);
    assert.equal(off.usage().attention.correction, undefined);
    assert.ok(spansOf(group).slice(3).every((span) => span.startsWith("sparse")));
  }));

Deno.test("Scheduler counts what corrections read, and keeps exact answers for the prefix cache", () =>
  withScheduler({}, async (scheduler) => {
    const generation = scheduler.generate(request({ every: 4 }, { maxTokens: 100 }));
    const { tokens } = await collect(generation);
    const { correction, rowsReadPerToken } = generation.usage().attention;
    assert.deepEqual([correction?.mode, correction?.every, correction?.stride], ["refresh", 4, 4]);
    assert.deepEqual([correction?.corrections, correction?.rows], [24, 96]);
    assert.ok(rowsReadPerToken > 4 * 90 && rowsReadPerToken < 8 * 100, `${rowsReadPerToken}`);
    const again = scheduler.generate(generationRequest({
      promptTokens: Uint32Array.of(...promptOf(40), ...tokens),
      maxTokens: 1,
    }));
    await collect(again);
    assert.equal(again.usage().cachedTokens, 128, "two pages, of which the prompt filled none");
  }));

Deno.test("Scheduler refreshes on its own account by the rows of the sequence, whatever that takes", async () => {
  const rowMs = [0.1, 1, 100];
  const spans: string[][] = [];
  for (const ms of rowMs) {
    const stepMs = ({ spans }: { readonly spans: readonly Span[] }) =>
      spans.reduce((sum, { tokens }) => sum + (tokens.length > 1 ? ms * tokens.length : 1), 0);
    await withScheduler({ stepMs }, async (scheduler, group) => {
      const generation = scheduler.generate(request({}, { maxTokens: 300 }));
      await collect(generation);
      assert.equal(generation.usage().attention.correction?.corrections, 9);
      spans.push(spansOf(group).filter((span) => span.startsWith("sparse")));
    });
  }
  assert.deepEqual(spans[1], spans[0]);
  assert.deepEqual(spans[2], spans[0]);
});

Deno.test("Scheduler makes no refresh on its own account beyond the context where that is cheap", () =>
  withScheduler({ model: { cheapCorrections: 100 } }, async (scheduler) => {
    const generation = scheduler.generate(request({}, { maxTokens: 400 }));
    await collect(generation);
    assert.equal(generation.usage().attention.correction?.corrections, 1);
  }));

Deno.test("Scheduler audits: tokens stay, and usage says where full attention draws others", () =>
  withScheduler({ errs: errsAt(41, 47) }, async (scheduler, group) => {
    const generation = scheduler.generate(request({ mode: "audit", every: 4, perToken: true }, { maxTokens: 13 }));
    const { tokens } = await collect(generation);
    const { correction } = generation.usage().attention;
    // Of row 41 the token at 42: the second of the output. Row 47 is computed by a correction, which does not err.
    assert.deepEqual(correction?.audit && { ...correction.audit, tokens: undefined }, {
      checked: 9,
      agreed: 8,
      divergence: 1,
      measured: 9,
      firstDivergence: 2,
      tokens: undefined,
    });
    const audited = correction?.audit?.tokens ?? [];
    assert.deepEqual(audited.map(({ index }) => index), [1, 2, 3, 5, 6, 7, 9, 10, 11]);
    assert.deepEqual(audited.map(({ token }) => token), audited.map(({ index }) => tokens[index]));
    assert.deepEqual(
      spansOf(group).filter((span) => span.endsWith("audit")),
      [40, 44, 48].map((at) => `dense ${at}+4 audit`),
    );
  }));

for (const every of ["auto", 2, 3, 7, 40] as const) {
  Deno.test(`Scheduler gives the tokens of dense decoding in mode lossless, however drafts err: every ${every}`, () => {
    const reports: CorrectionReport[] = [];
    const observer = { onCorrection: (_: GenerationRequest, report: CorrectionReport) => void reports.push(report) };
    const errs = (position: number) => position % 3 === 0 || position % 11 === 0;
    return withScheduler({ errs, scheduler: { observer } }, async (scheduler) => {
      const asked = request({ mode: "lossless", every }, { maxTokens: 100 });
      const generation = scheduler.generate(asked);
      const { tokens, reason } = await collect(generation);
      assert.deepEqual({ tokens, reason }, runAlone(asked));
      const { correction } = generation.usage().attention;
      assert.ok((correction?.rollbacks ?? 0) > 10, `${correction?.rollbacks} roll-backs`);
      assert.equal(correction?.corrections, reports.filter(({ isLast }) => isLast).length);
      assert.equal(correction?.dropped, reports.reduce((sum, { dropped }) => sum + dropped, 0));
      const { checked = 0, agreed = 0 } = correction?.audit ?? {};
      assert.equal(checked - agreed, correction?.rollbacks, "drafts after a divergence do not count");
      assert.equal(scheduler.stats().tokens.generated, 100);
    });
  });
}

Deno.test("Scheduler releases nothing that is not verified, and verifies before an answer ends", () =>
  withScheduler({}, async (scheduler, group) => {
    const asked = request({ mode: "lossless", every: 8 }, { maxTokens: 7 });
    await collect(scheduler.generate(asked));
    assert.deepEqual(spansOf(group), [...[40, 41, 42, 43, 44].map((at) => `sparse ${at}+1 last`), "dense 40+6 audit"]);
    const stop = runAlone(asked).tokens[3] ?? assert.fail();
    const { tokens, reason } = await collect(scheduler.generate({ ...asked, stopTokens: [stop] }));
    assert.deepEqual([tokens.length, tokens.at(-1), reason], [4, stop, "stop"]);
    assert.equal(spansOf(group).at(-1), "dense 40+3 audit", "after a stop token nothing is drawn");
  }));

Deno.test("Scheduler goes on where a drafted stop token was wrong", () =>
  withScheduler({ errs: errsAt(42) }, async (scheduler) => {
    const plain = request({ mode: "lossless", every: 8 }, { maxTokens: 20 });
    const right = runAlone(plain).tokens[3] ?? assert.fail();
    const asked = { ...plain, stopTokens: [(right + 1) % 1000] };
    const { tokens, reason } = await collect(scheduler.generate(asked));
    assert.deepEqual({ tokens, reason }, runAlone(asked));
    assert.equal(tokens.length, 20);
  }));

Deno.test("Generation.cancel() in the middle of drafts leaves no page, and usage counts what was read alone", () =>
  withScheduler({ errs: errsAt(55) }, async (scheduler, group) => {
    const generation = scheduler.generate(request({ mode: "lossless", every: 16 }, { maxTokens: 200 }));
    const tokens: number[] = [];
    for await (const event of generation) {
      if (event.kind === "token") tokens.push(event.token);
      if (tokens.length === 17) break;
    }
    assert.deepEqual(tokens, runAlone(request({}, { maxTokens: 17 })).tokens);
    await until(() => group.open === 0);
    assert.equal(scheduler.stats().pages.used, 0);
    assert.ok(generation.usage().completionTokens >= 17);
  }));

Deno.test("Scheduler cuts corrections for time while others decode, and no one is kept waiting long", () => {
  const rowMs = 4;
  const stepMs = ({ spans }: { readonly spans: readonly Span[] }) =>
    spans.reduce((ms, { tokens }) => ms + (tokens.length > 1 ? rowMs * tokens.length : 1), 1);
  return withScheduler({ stepMs }, async (scheduler, group) => {
    // Until some were measured, it is not known what a correction takes.
    await collect(scheduler.generate(request({ every: 8 }, { maxTokens: 150 })));
    const long = request({ mode: "lossless", every: 100 }, { promptTokens: promptOf(50, 1), maxTokens: 300 });
    const others = [2, 3, 4].map((salt) =>
      request({ mode: "off" }, { promptTokens: promptOf(50, salt), maxTokens: 500 })
    );
    const first = group.steps.length;
    const outcomes = await Promise.all([long, ...others].map((one) => collect(scheduler.generate(one))));
    assert.deepEqual(outcomes[0]?.tokens, runAlone(long).tokens);
    const shared = group.steps.slice(first).filter(({ spans }) => spans.length > 2 && spans.some(isAudit));
    const most = Math.max(...shared.map(stepMs));
    assert.ok(shared.length > 5, `${shared.length} pieces of corrections beside others`);
    assert.ok(most <= 75, `a step of ${most} ms`);
    for (const { spans } of shared) assert.ok(spans.filter((span) => !isAudit(span)).length >= 3, "all others decode");
  });
});

function isAudit({ logits }: Span): boolean {
  return logits === "audit";
}

Deno.test("Scheduler corrects several sequences in one step", () =>
  withScheduler({}, async (scheduler, group) => {
    const asked = [0, 1, 2, 3].map((salt) =>
      request({ mode: "lossless", every: 4 + salt % 2 }, { promptTokens: promptOf(40, salt), maxTokens: 60 })
    );
    const outcomes = await Promise.all(asked.map((one) => collect(scheduler.generate(one))));
    outcomes.forEach(({ tokens }, i) => assert.deepEqual(tokens, runAlone(asked[i] ?? assert.fail()).tokens));
    assert.ok(group.steps.some(({ spans }) => spans.filter(isAudit).length >= 2));
    assert.ok(group.steps.some(({ spans }) => spans.some(isAudit) && spans.some((span) => !isAudit(span))));
  }));

Deno.test("Scheduler forgets drafts with the group that drew them, and rebuilds what its reader knows", () =>
  withScheduler({ errs: (position) => position % 5 === 0 }, async (scheduler, group) => {
    const asked = request({ mode: "lossless", every: 8 }, { maxTokens: 90 });
    const { tokens, reason } = await collect(scheduler.generate(asked), (count) => {
      if (count !== 30 && count !== 60) return;
      group.break();
      setTimeout(() => group.recover(), 5);
    });
    assert.deepEqual({ tokens, reason }, runAlone(asked));
  }));

Deno.test("Scheduler rebuilds lost sparse rows as sparse rows, and goes on correcting where it would have", async () => {
  const errs = (position: number) => position % 5 === 0;
  const run = async (breakAt: readonly number[]) => {
    let outcome: { tokens: readonly number[]; corrections: string[]; spans: string[] } | undefined;
    await withScheduler({ errs }, async (scheduler, group) => {
      const generation = scheduler.generate(request({ every: 16 }, { maxTokens: 120 }));
      const { tokens } = await collect(generation, (count) => {
        if (!breakAt.includes(count)) return;
        group.break();
        setTimeout(() => group.recover(), 5);
      });
      const spans = spansOf(group);
      outcome = { tokens, corrections: spans.filter((span) => /^dense .*\+16 last$/.test(span)), spans };
    });
    return outcome ?? assert.fail();
  };
  const [whole, broken] = [await run([]), await run([25, 60, 61])];
  assert.deepEqual(broken.tokens, whole.tokens);
  assert.deepEqual(broken.corrections, whole.corrections);
  assert.ok(broken.spans.some((span) => /^sparse \d+\+1 none$/.test(span)), "rows whose tokens are known");
  assert.ok(!whole.spans.some((span) => span.endsWith("none")));
});
