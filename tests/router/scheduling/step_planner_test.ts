/** How much goes into a step, and who goes first. */

import assert from "node:assert/strict";
import { resolveAttention } from "../../../router/scheduling/attention_policy.ts";
import { CostModel, NO_LOAD } from "../../../router/scheduling/cost_model.ts";
import { EventQueue } from "../../../router/scheduling/event_queue.ts";
import type { GenerationRequest } from "../../../router/scheduling/generation.ts";
import { PageLedger } from "../../../router/scheduling/page_ledger.ts";
import { Roster } from "../../../router/scheduling/roster.ts";
import { Sequence } from "../../../router/scheduling/sequence.ts";
import { type Plan, StepPlanner } from "../../../router/scheduling/step_planner.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { generationRequest, NO_CORRECTION, promptOf } from "../../support/generation_request.ts";

const { state } = new FakeGroup();
const model = state.kind === "ready" ? state.model : assert.fail();

/** A bench on a machine that takes `rowMs` for a prefill row and next to nothing for all else. */
class Bench {
  readonly roster = new Roster();
  readonly ledger: PageLedger;
  readonly costs = new CostModel();
  readonly preempted: Sequence[] = [];
  readonly #maxBatch: number;
  readonly #maxBypassMs: number;
  #arrivals = 0;

  constructor({ slices = [100], maxBatch = 4, rowMs = 1, maxBypassMs = 60_000 } = {}) {
    this.#maxBypassMs = maxBypassMs;
    this.ledger = new PageLedger(slices);
    this.#maxBatch = maxBatch;
    for (let i = 0; i < 40; i++) {
      const rows = 16 + 16 * (i % 9);
      this.costs.learn(
        { ...NO_LOAD, kinds: ["prefill"], prefillRows: rows, prefillContext: i * 100 * rows },
        rowMs * rows,
      );
      this.costs.learn({ ...NO_LOAD, kinds: ["dense"], decodeRows: 1 + i % 4, decodeContext: 100 * i }, 0.1);
    }
  }

  add(promptTokens: number, maxTokens = 50, changes: Partial<GenerationRequest> = {}): Sequence {
    const sequence = new Sequence({
      request: generationRequest({ promptTokens: promptOf(promptTokens, this.#arrivals), maxTokens, ...changes }),
      model,
      policy: resolveAttention(
        { mode: "dense", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
        model,
      ),
      events: new EventQueue(1000, { onRoom: () => {}, onLeave: () => {} }),
      arrival: this.#arrivals++,
    });
    this.roster.enqueue(sequence);
    return sequence;
  }

  plan(): Plan {
    return new StepPlanner({
      roster: this.roster,
      ledger: this.ledger,
      costs: this.costs,
      limits: { maxBatch: this.#maxBatch, sharedPrefillMs: 50, alonePrefillMs: 500, maxBypassMs: this.#maxBypassMs },
      onPreempted: (sequence) => this.preempted.push(sequence),
      onAdmitted: () => {},
    }).plan();
  }

  /** Plans a step and takes its results in. @returns rows by sequence, in order of arrival */
  step(index = 1): Record<number, number> {
    const { spans } = this.plan();
    for (const { sequence, work, span } of spans) {
      sequence.lastStep = index;
      sequence.advance({ work, span }, { sequence: span.sequence, ...(span.logits !== "none" && { token: 1 }) });
    }
    return Object.fromEntries(spans.map(({ sequence, span }) => [sequence.arrival, span.tokens.length]));
  }
}

Deno.test("StepPlanner.plan() fills about 500 ms with prefill when nothing decodes, and ends at a page border", () => {
  const bench = new Bench();
  bench.add(2000);
  const rows = bench.step()[0] ?? assert.fail();
  assert.ok(rows > 350 && rows <= 512, `${rows} rows`);
  assert.equal(rows % 64, 0);
});

Deno.test("StepPlanner.plan() adds about 50 ms of prefill while others decode", () => {
  const bench = new Bench();
  bench.add(64);
  bench.step();
  bench.add(1000);
  const { 0: decoded, 1: chunk = 0 } = bench.step();
  assert.equal(decoded, 1);
  assert.ok(chunk >= 32 && chunk <= 64, `${chunk} rows`);
  assert.equal(chunk % 16, 0);
});

Deno.test("StepPlanner.plan() lets several short prompts share a step, and a longer one have what time is left", () => {
  const bench = new Bench();
  [100, 100, 1000, 100].forEach((prompt) => bench.add(prompt));
  const rows = bench.step();
  assert.deepEqual([rows[0], rows[1], rows[3]], [100, 100, 100]);
  assert.ok((rows[2] ?? 0) >= 128, `${rows[2]} rows of the third`);
});

Deno.test("StepPlanner.plan() never makes a chunk longer than 2048 rows for each worker or, but at the end, shorter than 16", () => {
  const fast = new Bench({ slices: [200], rowMs: 0.01 });
  fast.add(10_000);
  assert.equal(fast.step()[0], 2048);
  const group = new Bench({ slices: [100, 100], rowMs: 0.01 });
  group.add(10_000);
  assert.equal(group.step()[0], 4096);
  const slow = new Bench({ rowMs: 1000 });
  slow.add(40);
  assert.deepEqual([slow.step()[0], slow.step()[0], slow.step()[0]], [16, 16, 8]);
});

Deno.test("StepPlanner.plan() takes turns when more decode than fit into a batch", () => {
  const bench = new Bench({ maxBatch: 2 });
  const [first, second, third] = [bench.add(10), bench.add(10), bench.add(10)];
  bench.step(1);
  // As if the third one had been paused while the others were admitted.
  bench.roster.admit(third, bench.ledger);
  assert.deepEqual(bench.step(2), { 0: 1, 1: 1, 2: 10 });
  assert.deepEqual(bench.step(3), { 0: 1, 1: 1 });
  assert.deepEqual(bench.step(4), { 0: 1, 2: 1 });
  assert.deepEqual(bench.step(5), { 0: 1, 1: 1 });
  assert.ok(first.generated >= second.generated && third.generated > 1);
});

Deno.test("StepPlanner.plan() lets short prompts overtake a long one, which still gets half of the time", () => {
  const bench = new Bench();
  bench.add(4000);
  bench.step();
  bench.add(100);
  const both = bench.step();
  assert.equal(both[1], 100, "the short one is done in the next step");
  assert.ok((both[0] ?? 0) >= 250, `${both[0]} rows of the long one`);
  for (let i = 0; i < 5; i++) {
    const short = bench.add(200);
    const rows = bench.step();
    assert.ok(
      (rows[0] ?? 0) >= (rows[short.arrival] ?? 0),
      `${rows[0]} rows of the long one, however many short ones come`,
    );
  }
});

Deno.test("StepPlanner.plan() goes by priority before length and arrival", () => {
  const bench = new Bench({ maxBatch: 1 });
  bench.add(20);
  const urgent = bench.add(300, 50, { priority: -1 });
  bench.step();
  assert.deepEqual(bench.roster.running, [urgent]);
});

Deno.test("StepPlanner.plan() lets others overtake one that does not fit, but not for ever", () => {
  for (const [maxBypassMs, isOvertaken] of [[60_000, true], [0, false]] as const) {
    const bench = new Bench({ slices: [4], maxBypassMs });
    bench.add(100);
    bench.step();
    const large = bench.add(128);
    assert.deepEqual(bench.step(), { 0: 1 }, "no page would be left for those that run");
    const small = bench.add(30);
    const rows = bench.step();
    assert.equal(rows[2] === 30, isOvertaken);
    assert.deepEqual(bench.roster.waiting, isOvertaken ? [large] : [large, small]);
  }
});

Deno.test("StepPlanner.plan() lets a request in beside a full batch of another one's choices, and decodes in turns", () => {
  const bench = new Bench({ maxBatch: 2 });
  const choices = Array.from({ length: 4 }, () => bench.add(10, 500, { requestId: "many", choices: 4 }));
  bench.step(1);
  const single = bench.add(12);
  bench.step(2);
  assert.deepEqual(bench.roster.running, [choices[0], choices[1], single]);
  for (let i = 3; i < 30; i++) bench.step(i);
  assert.ok(single.generated >= 12, `${single.generated} tokens`);
  assert.equal(bench.roster.running.length, 3, "what is left of the choices still waits");
});

Deno.test("StepPlanner.plan() takes pages back from a request of many choices for one that has nothing running", () => {
  const bench = new Bench({ slices: [6], maxBatch: 8 });
  const choices = Array.from({ length: 3 }, () => bench.add(100, 200, { requestId: "many", choices: 3 }));
  bench.step(1);
  const single = bench.add(100);
  bench.step(2);
  assert.ok(bench.roster.running.includes(single));
  assert.deepEqual(bench.preempted, [choices[1]], "the youngest of those that ran");
  bench.ledger.check(bench.roster.running);
});

Deno.test("StepPlanner.plan() preempts the youngest for the oldest when no page is left", () => {
  const bench = new Bench({ slices: [6] });
  const [old, young] = [bench.add(120, 250), bench.add(120, 250)];
  for (let i = 1; bench.preempted.length === 0; i++) bench.step(i);
  assert.deepEqual(bench.preempted, [young]);
  assert.deepEqual([bench.roster.running, bench.roster.waiting], [[old], [young]]);
  bench.ledger.check(bench.roster.running);
});

Deno.test("StepPlanner.plan() gives workers who share a chunk whole turns of the page map, unless others decode", () => {
  const bench = new Bench({ slices: [60, 40, 20] });
  assert.equal(bench.ledger.period, 6);
  bench.add(3000);
  assert.deepEqual([bench.step()[0], bench.step()[0]], [384, 384]);
  const slow = new Bench({ slices: [60, 40, 20], rowMs: 2 });
  slow.add(1000);
  const rows = slow.step()[0] ?? assert.fail();
  assert.ok(rows > 128 && rows < 384 && rows % 64 === 0, `${rows} rows: no turn fits into 500 ms`);
});

Deno.test("StepPlanner.plan() preempts the youngest that holds pages on the worker that is full", () => {
  const bench = new Bench({ slices: [3, 3] });
  const [old, middle, young] = [bench.add(100), bench.add(100), bench.add(10)];
  for (const [sequence, offset] of [[old, 0], [middle, 0], [young, 1]] as const) {
    bench.roster.admit(sequence, bench.ledger);
    sequence.pageOffset = offset;
  }
  for (let i = 1; bench.preempted.length === 0; i++) bench.step(i);
  // Both want their third page on worker 0, where the youngest of all has nothing to give.
  assert.deepEqual(bench.preempted.map(({ arrival }) => arrival), [middle.arrival]);
  assert.equal(old.pages.length, 3);
  bench.ledger.check(bench.roster.running);
});
