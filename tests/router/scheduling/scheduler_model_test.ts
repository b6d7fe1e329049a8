/**
 * Random crowds of requests on random machines: whatever arrives, stops, leaves or breaks, everyone gets the tokens
 * that it would get alone, the group never sees a contradictory step, and no page stays behind.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PAGE_TOKENS, type SequenceOpening } from "../../../engine/span.ts";
import { longestOnSlices } from "../../../router/scheduling/capacity.ts";
import type { CorrectionReport } from "../../../router/scheduling/correction.ts";
import type { GenerationRequest } from "../../../router/scheduling/generation.ts";
import { Scheduler } from "../../../router/scheduling/scheduler.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, GREEDY, promptOf } from "../../support/generation_request.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { until } from "../../support/until.ts";

/** One client: what it asks, when it comes, and when it leaves. */
interface Client {
  readonly request: GenerationRequest;
  readonly afterSteps: number;
  /** Leaves after this many tokens. */
  readonly leavesAt: number | undefined;
  /** Reads slower than the group draws. */
  readonly slow: boolean;
}

const client: fc.Arbitrary<Client> = fc.record({
  text: fc.nat(2),
  length: fc.integer({ min: 1, max: 130 }),
  maxTokens: fc.integer({ min: 1, max: 180 }),
  stopAt: fc.option(fc.nat(100)),
  mode: fc.constantFrom("auto", "dense", "sparse"),
  correction: fc.constantFrom("off", "refresh", "lossless"),
  every: fc.constantFrom<"auto" | number>("auto", 1, 2, 5, 40),
  penalty: fc.constantFrom(1, 1.2),
  presence: fc.constantFrom(0, 0.5),
  afterSteps: fc.nat(20),
  slow: fc.boolean(),
  leavesAt: fc.option(fc.nat(100), { nil: undefined, freq: 2 }),
}).map((raw) => {
  const sampling = { ...GREEDY, repetitionPenalty: raw.penalty, presencePenalty: raw.presence };
  const correction = { mode: raw.correction, every: raw.every, perToken: false } as const;
  const attention = { mode: raw.mode, budget: undefined, heads: "kv_head", correction } as const;
  const promptTokens = promptOf(raw.length, raw.text);
  const request = generationRequest({ promptTokens, maxTokens: raw.maxTokens, sampling, attention });
  const stop = raw.stopAt === null ? undefined : runAlone(request).tokens[raw.stopAt];
  const stopTokens = stop === undefined ? [] : [stop];
  return { request: { ...request, stopTokens }, afterSteps: raw.afterSteps, leavesAt: raw.leavesAt, slow: raw.slow };
});

/** Groups whose longest context takes every client, and not much more; slices of one page included. */
const slices = fc.oneof(
  fc.integer({ min: 5, max: 9 }).map((pages) => [pages]),
  fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 2, maxLength: 3 })
    .filter((pages) => longestOnSlices(pages) >= 5 * PAGE_TOKENS),
);

/** Sparse rows of lossless sequences often err: corrections must find every one. */
function errs(position: number, { audited }: SequenceOpening): boolean {
  return audited && (position % 3 === 0 || position % 7 === 0);
}

const crowd = fc.record({
  clients: fc.array(client, { minLength: 1, maxLength: 16 }),
  slices,
  maxBatch: fc.integer({ min: 1, max: 6 }),
  maxUnread: fc.integer({ min: 1, max: 20 }),
  rowMs: fc.constantFrom(0.1, 1, 10),
  stepsInFlight: fc.constantFrom(1, 2, 2),
});

/** The gate tries the same crowds each time, among them those that once found too few pages on one of two workers. */
const SEED = gateCases({ seed: 264_799_906 }, {});

/** Turns of the event loop; the fake group takes about one for a step. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** What a client must have seen: everything up to where it left, or everything. */
async function visit(scheduler: Scheduler, { request, leavesAt, slow }: Client): Promise<void> {
  const alone = runAlone(request);
  const tokens: number[] = [];
  for await (const event of scheduler.generate(request)) {
    if (event.kind === "token") tokens.push(event.token);
    if (event.kind === "finished") assert.equal(event.reason, alone.reason);
    if (slow) await turns(5);
    if (leavesAt !== undefined && tokens.length >= leavesAt) break;
  }
  const seen = leavesAt === undefined ? alone.tokens.length : tokens.length;
  assert.ok(leavesAt === undefined || seen >= Math.min(leavesAt, alone.tokens.length));
  assert.deepEqual(tokens, alone.tokens.slice(0, seen));
}

Deno.test("Scheduler gives everyone the tokens of running alone, and leaks no page", async () => {
  const totals = {
    preemptions: 0,
    hitTokens: 0,
    sharedSteps: 0,
    hitsAtAnOffset: 0,
    refreshes: 0,
    rollbacks: 0,
    aheadSteps: 0,
  };
  const property = fc.asyncProperty(crowd, async ({ clients, slices, rowMs, stepsInFlight, ...limits }) => {
    const stepMs = ({ spans }: { spans: readonly { tokens: Uint32Array }[] }) =>
      spans.reduce((ms, span) => ms + rowMs * span.tokens.length, 1);
    const group = new FakeGroup({ model: { slices }, stepMs, errs, stepsInFlight });
    const observer = {
      onCorrection(_: GenerationRequest, { mode, dropped }: CorrectionReport) {
        if (mode === "refresh") totals.refreshes++;
        if (dropped > 0) totals.rollbacks++;
      },
    };
    const scheduler = new Scheduler(group, { ...limits, observer });
    try {
      await Promise.all(clients.map(async (client) => {
        await turns(client.afterSteps);
        scheduler.check();
        await visit(scheduler, client);
      }));
      await until(() => group.open === 0);
      scheduler.check();
      const { pages, running, waiting, preemptions, prefix } = scheduler.stats();
      assert.deepEqual([pages.used, pages.free + pages.cached, running, waiting], [
        0,
        slices.reduce((sum, count) => sum + count),
        0,
        0,
      ]);
      assert.deepEqual(group.complaints, []);
      totals.preemptions += preemptions;
      totals.hitTokens += prefix.hitTokens;
      const opens = group.steps.flatMap((step) => step.open);
      totals.hitsAtAnOffset += opens.filter((open) => open.pageOffset > 0 && open.prefixPages.length > 0).length;
      totals.aheadSteps += group.steps.filter((step) => step.spans.some(({ sampled }) => sampled)).length;
      totals.sharedSteps += group.steps.filter((step) => step.spans.length > 1).length;
    } finally {
      await Promise.all([scheduler.close(), group.close()]);
    }
  });
  await fc.assert(property, { numRuns: 80, ...SEED });
  for (const [name, count] of Object.entries(totals)) assert.ok(count > 0, `the crowds never led to ${name}`);
});

Deno.test("Scheduler survives a group that breaks at random: the right tokens, or a coded error after them", async () => {
  const smaller = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });
  const loss = fc.record({
    afterSteps: fc.integer({ min: 1, max: 40 }),
    left: fc.option(smaller, { nil: undefined, freq: 2 }),
  });
  const codes = new Set<string | undefined>();
  const property = fc.asyncProperty(crowd, fc.array(loss, { minLength: 1, maxLength: 3 }), async (crowd, losses) => {
    const { clients, slices, maxBatch, stepsInFlight } = crowd;
    const group = new FakeGroup({ model: { slices }, errs, stepsInFlight });
    const scheduler = new Scheduler(group, { maxBatch });
    try {
      const outcomes = clients.map(({ request }) => collect(scheduler.generate(request)));
      for (const { afterSteps, left = slices } of losses) {
        const until = group.steps.length + afterSteps;
        const isBusy = () => scheduler.stats().running + scheduler.stats().waiting > 0;
        while (group.steps.length < until && isBusy()) {
          await turns(1);
        }
        group.break();
        await turns(1);
        group.recover({ slices: left });
      }
      const shortest = Math.min(...losses.map(({ left = slices }) => longestOnSlices(left)));
      for (const [i, { tokens, reason, code }] of (await Promise.all(outcomes)).entries()) {
        const { request } = clients[i] ?? assert.fail();
        const alone = runAlone(request);
        assert.deepEqual(tokens, alone.tokens.slice(0, tokens.length));
        codes.add(code);
        if (code === undefined) assert.deepEqual({ tokens, reason }, alone);
        else if (code === "worker_lost") assert.ok(losses.length > 1, "lost at the first break");
        else {assert.ok(
            code === "group_unavailable" && request.promptTokens.length + request.maxTokens > shortest,
            code,
          );}
      }
      // The last row may have overrun, and still be on its way.
      await until(() => scheduler.stats().pages.used === 0);
      scheduler.check();
      assert.deepEqual(group.complaints, []);
    } finally {
      await Promise.all([scheduler.close(), group.close()]);
    }
  });
  await fc.assert(property, { numRuns: 80, ...SEED });
  assert.deepEqual(codes, new Set([undefined, "worker_lost", "group_unavailable"]));
});
