/** What one request, and several together, may expect of the scheduler. */

import assert from "node:assert/strict";
import { EngineError } from "../../../engine/errors.ts";
import { PageMap } from "../../../engine/page_map.ts";
import { pagesWithin } from "../../../router/scheduling/capacity.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, NO_CORRECTION, promptOf } from "../../support/generation_request.ts";
import { until } from "../../support/until.ts";
import { assertAlone, withScheduler } from "../../support/with_scheduler.ts";

Deno.test("Scheduler.generate() reports prefill, tokens and the end in order, and the usage", () =>
  withScheduler({}, async (scheduler, group) => {
    const request = generationRequest({ promptTokens: promptOf(200), maxTokens: 3, traceparent: "00-aa-bb-01" });
    const generation = scheduler.generate(request);
    const { events, tokens } = await collect(generation);
    const kinds = events.map((event) => event.kind);
    assert.ok(kinds.lastIndexOf("prefill") < kinds.indexOf("token"));
    assert.deepEqual(kinds.slice(-4), ["token", "token", "token", "finished"]);
    const last = events[kinds.lastIndexOf("prefill")];
    assert.deepEqual(last, { kind: "prefill", total: 200, cached: 0, processed: 200 });
    const attended = { mode: "dense", budget: undefined, selectLayers: [], context: 202, rowsReadPerToken: 4 * 201.5 };
    const attention = { ...attended, correction: undefined };
    const usage = { promptTokens: 200, completionTokens: 3, cachedTokens: 0, attention };
    assert.deepEqual(events.at(-1), { kind: "finished", reason: "length", usage });
    assert.deepEqual(generation.usage(), usage);
    assert.deepEqual(tokens, runAlone(request).tokens);
    assert.deepEqual(group.traceparents[0], ["00-aa-bb-01"]);
  }));

Deno.test("Scheduler ends a sequence at a stop token, which it reports", () =>
  withScheduler({}, async (scheduler) => {
    const request = generationRequest({ maxTokens: 50 });
    const stop = runAlone(request).tokens[7] ?? assert.fail();
    const { tokens, reason } = await collect(scheduler.generate({ ...request, stopTokens: [stop] }));
    assert.deepEqual([tokens.at(-1), reason], [stop, "stop"]);
  }));

Deno.test("Scheduler gives one token for maxTokens 1 and a one-token prompt", () =>
  withScheduler(
    {},
    (scheduler) => assertAlone(scheduler, generationRequest({ promptTokens: promptOf(1), maxTokens: 1 })),
  ));

Deno.test("Scheduler.generate() refuses what cannot fit and names both numbers", () =>
  withScheduler({ model: { kvPages: 4, maxPositions: 1000 } }, async (scheduler) => {
    const request = (prompt: number, maxTokens: number) =>
      generationRequest({ promptTokens: promptOf(prompt), maxTokens });
    const code = "context_length_exceeded";
    assert.throws(() => scheduler.generate(request(200, 57)), { code, message: /200 .* 57 .* capacity of 256/ });
    await assertAlone(scheduler, request(200, 56));
    assert.throws(() => scheduler.generate(request(0, 1)), { code: "invalid_request" });
    assert.throws(() => scheduler.generate(request(1, 0)), { code: "invalid_request" });
    const alien = generationRequest({ promptTokens: Uint32Array.of(1, 1000) });
    assert.throws(() => scheduler.generate(alien), { code: "invalid_request", param: "prompt" });
  }));

Deno.test("Scheduler.generate() names the model's context when that is the smaller bound", () =>
  withScheduler({ model: { maxPositions: 100 } }, (scheduler) => {
    const request = generationRequest({ promptTokens: promptOf(90), maxTokens: 11 });
    assert.throws(() => scheduler.generate(request), { code: "context_length_exceeded", message: /context of 100/ });
    return Promise.resolve();
  }));

Deno.test("Scheduler.generate() refuses while the group loads", () =>
  withScheduler({ loading: true }, async (scheduler, group) => {
    assert.throws(() => scheduler.generate(generationRequest()), { code: "loading", message: /50 %/ });
    group.recover();
    await assertAlone(scheduler, generationRequest());
  }));

Deno.test("Scheduler.generate() refuses when the queue is full, and counts free places as no queue", () =>
  withScheduler({ scheduler: { maxBatch: 2, maxQueued: 3 } }, async (scheduler) => {
    const all = Array.from({ length: 5 }, (_, i) => scheduler.generate(generationRequest({ id: `${i}` })));
    assert.throws(() => scheduler.generate(generationRequest()), { code: "queue_full", message: /at most 3/ });
    await Promise.all(all.map((generation) => collect(generation)));
    await assertAlone(scheduler, generationRequest());
  }));

Deno.test("Scheduler ends a request that waits too long with queue_timeout", () =>
  withScheduler({ scheduler: { maxBatch: 1, queueTimeoutMs: 30 } }, async (scheduler, group) => {
    group.hold();
    const first = collect(scheduler.generate(generationRequest()));
    const second = await collect(scheduler.generate(generationRequest()));
    assert.equal(second.code, "queue_timeout");
    group.resume();
    assert.equal((await first).reason, "length", "who runs does not time out");
  }));

Deno.test("Scheduler goes on decoding while a long prompt is prefilled in chunks", () =>
  withScheduler(
    { stepMs: (step) => step.spans.reduce((ms, span) => ms + span.tokens.length, 1) },
    async (scheduler, group) => {
      const long = generationRequest({ promptTokens: promptOf(1500, 1), maxTokens: 2 });
      let other: Promise<unknown> | undefined;
      await collect(scheduler.generate(generationRequest({ maxTokens: 100 })), (count) => {
        if (count === 3) other = collect(scheduler.generate(long));
      });
      await other;
      const chunks = group.steps.filter((step) => step.spans.some((span) => span.tokens.length > 10));
      const mixed = chunks.filter((step) => step.spans.length === 2);
      assert.ok(mixed.length > 10, `${mixed.length} of ${chunks.length} chunks ran beside a decode row`);
      const rows = mixed.slice(5).map((step) => Math.max(...step.spans.map((span) => span.tokens.length)));
      assert.ok(rows.every((count) => count <= 64), `chunks of ${rows} rows would take longer than 50 ms`);
    },
  ));

Deno.test("Scheduler pauses a sequence whose reader is slow, and no other", () =>
  withScheduler({ scheduler: { maxUnread: 4 } }, async (scheduler) => {
    const slow = scheduler.generate(generationRequest({ maxTokens: 30 }));
    await assertAlone(scheduler, generationRequest({ maxTokens: 60 }));
    assert.ok(slow.usage().completionTokens <= 5, "it did not run on");
    assert.equal(scheduler.stats().running, 1);
    const { tokens } = await collect(slow);
    assert.equal(tokens.length, 30);
  }));

Deno.test("Scheduler takes the pages of paused sequences for those who can use them", () =>
  withScheduler({ model: { kvPages: 4 }, scheduler: { maxUnread: 2 } }, async (scheduler) => {
    const request = generationRequest({ promptTokens: promptOf(150), maxTokens: 60 });
    const slow = scheduler.generate(request);
    await until(() => slow.usage().completionTokens > 0);
    await assertAlone(scheduler, generationRequest({ promptTokens: promptOf(150, 1), maxTokens: 100 }));
    assert.ok(scheduler.stats().preemptions > 0);
    assert.deepEqual((await collect(slow)).tokens, runAlone(request).tokens);
  }));

Deno.test("Scheduler preempts the youngest when pages run out, and its client sees only a pause", () =>
  withScheduler({ model: { kvPages: 6 } }, async (scheduler, group) => {
    const requests = [0, 1, 2].map((i) => generationRequest({ promptTokens: promptOf(60, i), maxTokens: 200 }));
    const outcomes = await Promise.all(requests.map((request) => collect(scheduler.generate(request))));
    assert.deepEqual(outcomes.map(({ tokens }) => tokens), requests.map((request) => runAlone(request).tokens));
    assert.ok(scheduler.stats().preemptions > 0);
    for (const { events } of outcomes) {
      const kinds = events.map((event) => event.kind);
      assert.ok(kinds.lastIndexOf("prefill") < kinds.indexOf("token"), "no prefill is told after a token");
    }
    const spans = group.steps.flatMap((step) => step.spans);
    const prefill = spans.filter((span) => span.kind === "prefill");
    assert.ok(prefill.every((span) => span.from + span.tokens.length <= 60), "drawn tokens are not prefilled");
    assert.ok(spans.some((span) => span.kind === "decode" && span.tokens.length > 1), "but rebuilt as decode rows");
  }));

Deno.test("Scheduler moves a sequence that outgrows the offset it started at, once", () =>
  withScheduler({ model: { slices: [3, 2] } }, async (scheduler, group) => {
    const map = new PageMap([3, 2]);
    const reach = (offset: number) => pagesWithin(map, { offset, pages: 0 }, [3, 2]);
    const tight = Array.from({ length: map.period }, (_, offset) => offset).find((offset) => reach(offset) === 4);
    // Offsets take turns.
    for (let i = 0; i < (tight ?? assert.fail()); i++) {
      await collect(scheduler.generate(generationRequest({ promptTokens: promptOf(1, i), maxTokens: 1 })));
    }
    const stepsBefore = group.steps.length;
    await assertAlone(scheduler, generationRequest({ promptTokens: promptOf(100, 1000), maxTokens: 220 }));
    assert.equal(scheduler.stats().preemptions, 1);
    const [first, second, ...more] = group.steps.slice(stepsBefore).flatMap(({ open }) => open);
    assert.deepEqual([first?.pageOffset, more], [tight, []]);
    assert.equal(reach(second?.pageOffset ?? assert.fail()), 5);
  }));

Deno.test("Generation.cancel() frees pages while idle and while a step runs, and releases them on the worker", () =>
  withScheduler({}, async (scheduler, group) => {
    const generation = scheduler.generate(generationRequest({ maxTokens: 1000 }));
    const outcome = collect(generation, (count) => {
      if (count !== 3) return;
      group.hold();
      setTimeout(() => {
        generation.cancel();
        generation.cancel();
        group.resume();
      }, 5);
    });
    const { tokens, reason, code } = await outcome;
    assert.deepEqual([reason, code], [undefined, undefined], "it just ends");
    await until(() => group.open === 0);
    assert.ok(group.steps.length < tokens.length + 5, "it was not computed any further");
    assert.deepEqual(group.steps.at(-1)?.spans, [], "a step of its own carried the release");
    assert.equal(scheduler.stats().running, 0);
  }));

Deno.test("Generation.cancel() takes a request out of the queue", () =>
  withScheduler({ scheduler: { maxBatch: 1 } }, async (scheduler) => {
    const first = scheduler.generate(generationRequest());
    const second = scheduler.generate(generationRequest());
    second.cancel();
    assert.equal((await collect(second)).events.length, 0);
    assert.equal((await collect(first)).tokens.length, 5);
  }));

Deno.test("Scheduler fails the sequences of a refused step and goes on with the others", async (t) => {
  for (const when of ["early", "late"] as const) {
    await t.step(`refused ${when}`, () =>
      withScheduler({ scheduler: { maxUnread: 3 } }, async (scheduler, group) => {
        const paused = scheduler.generate(generationRequest({ maxTokens: 20 }));
        await until(() => paused.usage().completionTokens > 1);
        const other = scheduler.generate(generationRequest());
        await until(() => other.usage().completionTokens > 1);
        group.refuseNext(new EngineError("kv_exhausted", "Cannot take a page: none is free"), when);
        // The refused step opens one sequence and releases the other.
        other.cancel();
        assert.equal((await collect(scheduler.generate(generationRequest()))).code, "kv_exhausted");
        assert.equal((await collect(paused)).reason, "length");
        await assertAlone(scheduler, generationRequest());
      }));
  }
});

Deno.test("Scheduler ends everyone when the group answers nonsense, and serves the next", () =>
  withScheduler({}, async (scheduler, group) => {
    const run = group.run.bind(group);
    group.run = async (...step) => {
      group.run = run;
      const result = await run(...step);
      quitter.cancel();
      return { ...result, spans: [] };
    };
    const quitter = scheduler.generate(generationRequest());
    assert.equal((await collect(scheduler.generate(generationRequest()))).code, "invalid_step");
    assert.deepEqual([scheduler.stats().running, scheduler.stats().pages.used], [0, 0]);
    await assertAlone(scheduler, generationRequest());
  }));

Deno.test("Scheduler gives every error a code", () =>
  withScheduler({}, async (scheduler, group) => {
    group.refuseNext(new Error("no code"));
    assert.equal((await collect(scheduler.generate(generationRequest()))).code, "group_unavailable");
  }));

Deno.test("Scheduler refuses sparse attention for a model without a calibration, but serves auto", () =>
  withScheduler({ model: { roles: undefined, sparse: undefined, selectLayers: [] } }, async (scheduler) => {
    const request = (mode: "auto" | "sparse") =>
      generationRequest({
        promptTokens: promptOf(100),
        attention: { mode, budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
      });
    assert.throws(() => scheduler.generate(request("sparse")), { code: "invalid_request", param: "attention.mode" });
    const generation = scheduler.generate(request("auto"));
    await collect(generation);
    assert.deepEqual(generation.usage().attention.mode, "dense");
    assert.equal(generation.usage().attention.rowsReadPerToken, 4 * 102.5);
  }));

Deno.test("Scheduler decodes sparsely from sparseFrom on in mode auto, and counts the rows read", () =>
  withScheduler({}, async (scheduler, group) => {
    const attention = { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION } as const;
    const generation = scheduler.generate(generationRequest({ promptTokens: promptOf(62), maxTokens: 5, attention }));
    await collect(generation);
    const modes = group.steps.flatMap(({ spans }) =>
      spans.flatMap((span) => span.kind === "decode" ? span.attention : [])
    );
    assert.deepEqual(modes, ["dense", "dense", "sparse", "sparse"]);
    const rowsReadPerToken = (4 * 63 + 4 * 64 + 3 * 65 + 16 + 3 * 66 + 16) / 4;
    const expected = {
      mode: "sparse",
      budget: 16,
      selectLayers: [2],
      context: 66,
      rowsReadPerToken,
      correction: undefined,
    };
    assert.deepEqual(generation.usage().attention, expected);
  }));

Deno.test("Scheduler.drain() lets running requests finish, and cancels the rest at its deadline", () =>
  withScheduler({}, async (scheduler, group) => {
    const quick = collect(scheduler.generate(generationRequest()));
    const stuck = scheduler.generate(generationRequest({ maxTokens: 2500 }));
    const slow = collect(stuck);
    await until(() => stuck.usage().completionTokens > 20);
    group.hold();
    const drained = scheduler.drain(20);
    assert.throws(() => scheduler.generate(generationRequest()), { code: "draining" });
    await drained;
    assert.equal((await quick).reason, "length");
    assert.equal((await slow).code, "draining");
  }));

Deno.test("Scheduler.close() ends everyone with draining", () =>
  withScheduler({}, async (scheduler) => {
    const outcome = collect(scheduler.generate(generationRequest({ maxTokens: 1000 })));
    await scheduler.close();
    assert.equal((await outcome).code, "draining");
  }));

Deno.test("Scheduler finishes 1,000 sequences", () =>
  withScheduler({ model: { kvPages: 200 }, scheduler: { maxQueued: 1000 } }, async (scheduler) => {
    const requests = Array.from(
      { length: 1000 },
      (_, i) => generationRequest({ promptTokens: promptOf(1 + (i * 37) % 150, i % 40), maxTokens: 1 + (i * 13) % 30 }),
    );
    const outcomes = await Promise.all(requests.map((request) => collect(scheduler.generate(request))));
    outcomes.forEach(({ tokens }, i) => assert.deepEqual(tokens, runAlone(requests[i] ?? assert.fail()).tokens));
    scheduler.check();
    assert.equal(scheduler.stats().tokens.generated, outcomes.reduce((sum, { tokens }) => sum + tokens.length, 0));
  }));
