/** What requests with a common beginning may expect of the scheduler: exact pages are shared, and no others. */

import assert from "node:assert/strict";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, GREEDY, NO_CORRECTION, promptOf } from "../../support/generation_request.ts";
import { assertAlone, withScheduler } from "../../support/with_scheduler.ts";

Deno.test("Scheduler reuses the exact pages of an earlier prompt, but not another tenant's", () =>
  withScheduler({}, async (scheduler, group) => {
    const text = promptOf(5 * PAGE_TOKENS);
    const ask = (extra: number[], cacheSalt = "") =>
      generationRequest({ promptTokens: Uint32Array.of(...text, ...extra), cacheSalt });
    await assertAlone(scheduler, ask([1, 2, 3]));
    const stepsBefore = group.steps.length;
    const second = scheduler.generate(ask([4]));
    assert.deepEqual((await collect(second)).tokens, runAlone(ask([4])).tokens);
    assert.equal(second.usage().cachedTokens, 5 * PAGE_TOKENS);
    const [span] = group.steps.slice(stepsBefore).flatMap((step) => step.spans);
    assert.equal(span?.tokens.length, 1, "only the new token is computed");
    const same = scheduler.generate(ask([]));
    await collect(same);
    assert.equal(same.usage().cachedTokens, 4 * PAGE_TOKENS, "one token at least is computed");
    const stranger = scheduler.generate(ask([4], "other"));
    await collect(stranger);
    assert.equal(stranger.usage().cachedTokens, 0);
    assert.deepEqual(scheduler.stats().prefix, { queryTokens: 323 + 321 + 320 + 321, hitTokens: 320 + 256 });
  }));

Deno.test("Scheduler shares a prompt with others while its request still runs", () =>
  withScheduler({}, async (scheduler) => {
    const promptTokens = promptOf(4 * PAGE_TOKENS + 1);
    const first = scheduler.generate(generationRequest({ promptTokens, maxTokens: 40 }));
    let second: ReturnType<typeof collect> | undefined;
    let cached: (() => number) | undefined;
    await collect(first, (count) => {
      if (count !== 3) return;
      const generation = scheduler.generate(generationRequest({ promptTokens }));
      cached = () => generation.usage().cachedTokens;
      second = collect(generation);
    });
    assert.deepEqual((await second)?.tokens, runAlone(generationRequest({ promptTokens })).tokens);
    assert.equal(cached?.(), 4 * PAGE_TOKENS);
  }));

Deno.test("Scheduler keeps the exact pages of a cancelled request", () =>
  withScheduler({}, async (scheduler) => {
    const promptTokens = promptOf(300);
    const generation = scheduler.generate(generationRequest({ promptTokens, maxTokens: 1000 }));
    for await (const event of generation) if (event.kind === "token") break;
    const again = scheduler.generate(generationRequest({ promptTokens }));
    await collect(again);
    assert.equal(again.usage().cachedTokens, 256);
  }));

Deno.test("Scheduler counts only dense rows as exact: answers decoded sparsely are not reused", () =>
  withScheduler({}, async (scheduler) => {
    const attention = { mode: "sparse", budget: 16, heads: "kv_head", correction: NO_CORRECTION } as const;
    const promptTokens = promptOf(60);
    const sparse = scheduler.generate(generationRequest({ promptTokens, maxTokens: 100, attention }));
    const { tokens } = await collect(sparse);
    assert.deepEqual(sparse.usage().attention.mode, "sparse");
    const turn = generationRequest({ promptTokens: Uint32Array.of(...promptTokens, ...tokens, 5) });
    const second = scheduler.generate(turn);
    await collect(second);
    assert.equal(second.usage().cachedTokens, 0);
    const third = scheduler.generate(turn);
    await collect(third);
    assert.equal(third.usage().cachedTokens, 2 * PAGE_TOKENS, "prefilled, they are");
  }));

Deno.test("Scheduler sends prefix tokens to the worker when a penalty counts them", () =>
  withScheduler({}, async (scheduler, group) => {
    const request = generationRequest({ promptTokens: promptOf(200) });
    await assertAlone(scheduler, request);
    await assertAlone(scheduler, { ...request, sampling: { ...GREEDY, repetitionPenalty: 1.1 } });
    const opens = group.steps.flatMap((step) => step.open);
    assert.deepEqual(opens.map((open) => open.prefixTokens.length), [0, 192]);
  }));
