/** Pages of a group: every worker is loaded by its capacity, and the one that is full is relieved. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PageMap } from "../../../engine/page_map.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { resolveAttention } from "../../../router/scheduling/attention_policy.ts";
import { pagesWithin } from "../../../router/scheduling/capacity.ts";
import { EventQueue } from "../../../router/scheduling/event_queue.ts";
import { PageLedger } from "../../../router/scheduling/page_ledger.ts";
import { Sequence } from "../../../router/scheduling/sequence.ts";
import { fakeModel } from "../../support/fake_model.ts";
import { generationRequest, NO_CORRECTION, promptOf } from "../../support/generation_request.ts";

/** The accounts of a group, and sequences that come and go. */
class Bench {
  readonly ledger: PageLedger;
  readonly running: Sequence[] = [];
  readonly #model;
  #arrivals = 0;

  constructor(slices: readonly number[]) {
    this.ledger = new PageLedger(slices);
    this.#model = fakeModel({ slices });
  }

  sequence(tokens: number, { maxTokens = 1, text = this.#arrivals } = {}): Sequence {
    return new Sequence({
      request: generationRequest({ promptTokens: promptOf(tokens, text), maxTokens }),
      model: this.#model,
      policy: resolveAttention(
        { mode: "dense", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
        this.#model,
      ),
      events: new EventQueue(1000, { onRoom: () => {}, onLeave: () => {} }),
      arrival: this.#arrivals++,
    });
  }

  /** Admits a sequence and computes its prompt. @returns its physical pages */
  run(sequence: Sequence): readonly number[] {
    this.ledger.admit(sequence, sequence.arrival, this.running);
    return this.#compute(sequence);
  }

  /** The same from an offset on that a test chooses. */
  runAt(offset: number, sequence: Sequence): readonly number[] {
    sequence.start(sequence.arrival, { offset, pages: [] });
    return this.#compute(sequence);
  }

  #compute(sequence: Sequence): readonly number[] {
    this.running.push(sequence);
    const { rows } = sequence.work();
    const work = { ...sequence.work(), rows };
    const span = sequence.span(sequence.arrival, work, this.ledger.grow(sequence, sequence.length));
    sequence.advance({ work, span }, { sequence: sequence.arrival, token: 1 });
    return sequence.pages;
  }

  leave(sequence: Sequence): void {
    this.running.splice(this.running.indexOf(sequence), 1);
    this.ledger.leave(sequence);
  }

  /** Pages that sequences hold, by worker. */
  used(slices: readonly number[]): number[] {
    const pages = [...new Set(this.running.flatMap((sequence) => sequence.pages))];
    return countByWorker(pages, slices);
  }
}

function countByWorker(pages: readonly number[], slices: readonly number[]): number[] {
  let base = 0;
  return slices.map((count) => {
    const [first, end] = [base, base += count];
    return pages.filter((page) => page >= first && page < end).length;
  });
}

/** Largest distance from loads in proportion to the capacities, in pages. */
function imbalance(loads: readonly number[], slices: readonly number[]): number {
  const [load, capacity] = [loads, slices].map((counts) => counts.reduce((sum, count) => sum + count, 0));
  return Math.max(...loads.map((pages, i) => Math.abs(pages - (load ?? 0) * (slices[i] ?? 0) / (capacity ?? 1))));
}

const group = fc.array(fc.integer({ min: 10, max: 50 }), { minLength: 1, maxLength: 4 });

Deno.test("PageLedger.admit() loads all workers in proportion with many one-page sequences", () => {
  fc.assert(
    fc.property(group, (slices) => {
      const bench = new Bench(slices);
      const count = Math.floor(slices.reduce((sum, pages) => sum + pages, 0) / 3);
      for (let i = 0; i < count; i++) {
        bench.run(bench.sequence(10));
        assert.ok(imbalance(bench.used(slices), slices) <= 1.5, `[${bench.used(slices)}] of [${slices}]`);
      }
      bench.ledger.check(bench.running);
    }),
    { numRuns: 30 },
  );
});

Deno.test("PageLedger.admit() loads all workers in proportion with sequences of any length", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 6 * PAGE_TOKENS }), { minLength: 5, maxLength: 15 });
  fc.assert(fc.property(group, lengths, (slices, lengths) => {
    const bench = new Bench(slices);
    for (const tokens of lengths) {
      const sequence = bench.sequence(tokens);
      if (bench.ledger.canAdmit(sequence, bench.running)) bench.run(sequence);
    }
    assert.ok(imbalance(bench.used(slices), slices) <= 4, `[${bench.used(slices)}] of [${slices}]`);
  }));
});

Deno.test("PageLedger.admit() turns to the workers that others left", () => {
  const bench = new Bench([20, 20]);
  const sequences = Array.from({ length: 16 }, () => bench.sequence(10));
  for (const sequence of sequences) bench.run(sequence);
  for (const sequence of sequences.filter(({ pageOffset }) => pageOffset === 0)) bench.leave(sequence);
  assert.deepEqual(bench.used([20, 20]), [0, 8]);
  for (let i = 0; i < 6; i++) bench.run(bench.sequence(10));
  assert.deepEqual(bench.used([20, 20]), [6, 8]);
});

Deno.test("PageLedger.admit() spreads short sequences that come one after another, cached pages and all", () => {
  const slices = [12, 6, 6];
  const bench = new Bench(slices);
  const firstPages: number[] = [];
  for (let i = 0; i < 96; i++) {
    const sequence = bench.sequence(65, { text: i });
    firstPages.push(bench.run(sequence)[0] ?? assert.fail());
    bench.leave(sequence);
    const { cached, free } = bench.ledger.pages;
    assert.equal(cached + free, 24);
    // Each leaves one page behind; none is evicted while another would do.
    if (i < 20) assert.equal(cached, i + 1);
  }
  assert.ok(imbalance(countByWorker(firstPages, slices), slices) <= 6, `${countByWorker(firstPages, slices)}`);
});

Deno.test("PageLedger.admit() goes on at the offset of a cached prefix", () => {
  const bench = new Bench([4, 4, 4]);
  bench.run(bench.sequence(10));
  const first = bench.sequence(200, { text: 1 });
  const pages = [...bench.run(first)];
  bench.leave(first);
  const again = bench.sequence(200, { text: 1 });
  bench.run(again);
  assert.ok(again.pageOffset > 0 && again.pageOffset === first.pageOffset);
  assert.deepEqual(again.pages.slice(0, 3), pages.slice(0, 3));
  assert.equal(again.open(1).pageOffset, again.pageOffset);
  bench.ledger.check(bench.running);
});

/** An offset from which only four of five pages can be had. */
function tightOffset(slices: readonly number[]): number {
  const map = new PageMap(slices);
  const offsets = Array.from({ length: map.period }, (_, offset) => offset);
  return offsets.find((offset) => pagesWithin(map, { offset, pages: 0 }, slices) === 4) ?? assert.fail();
}

Deno.test("PageLedger.admit() leaves a cached prefix where what comes next would not fit after it", () => {
  const slices = [3, 2];
  const [bench, tight] = [new Bench(slices), tightOffset(slices)];
  const first = bench.sequence(PAGE_TOKENS + 1, { text: 7 });
  bench.runAt(tight, first);
  bench.leave(first);
  const short = bench.sequence(4 * PAGE_TOKENS - 1, { text: 7, maxTokens: PAGE_TOKENS + 1 });
  bench.run(short);
  assert.deepEqual([short.pageOffset, short.prefixPages], [tight, 1]);
  bench.leave(short);
  const long = bench.sequence(4 * PAGE_TOKENS + 1, { text: 7 });
  bench.run(long);
  assert.deepEqual([long.pages.length, long.prefixPages], [5, 0]);
  assert.notEqual(long.pageOffset, tight);
  bench.ledger.check(bench.running);
});

Deno.test("PageLedger.admit() lets a short sequence start anywhere, and a long one only where it can end", () => {
  const slices = [3, 2];
  const period = new Bench(slices).ledger.period;
  const offsetsOf = (tokens: number) => {
    const bench = new Bench(slices);
    return Array.from({ length: period }, () => {
      const sequence = bench.sequence(tokens, { maxTokens: 5 * PAGE_TOKENS - tokens });
      bench.run(sequence);
      bench.leave(sequence);
      return sequence.pageOffset;
    });
  };
  assert.ok(offsetsOf(10).includes(tightOffset(slices)));
  assert.ok(!offsetsOf(3 * PAGE_TOKENS).includes(tightOffset(slices)));
});

Deno.test("PageLedger.grow() evicts on the worker that is full, and nowhere else", () => {
  const bench = new Bench([4, 4]);
  for (const [offset, text] of [[0, 1], [0, 2], [0, 3], [1, 4]] as const) {
    const sequence = bench.sequence(PAGE_TOKENS + 1, { text });
    bench.runAt(offset, sequence);
    bench.leave(sequence);
  }
  assert.equal(bench.ledger.pages.cached, 4);
  bench.runAt(0, bench.sequence(4 * PAGE_TOKENS, { text: 9 }));
  assert.deepEqual(bench.ledger.pages, { total: 8, used: 4, cached: 3, free: 1 });
  for (const [text, hit] of [[2, 1], [3, 1], [4, 1], [1, 0]] as const) {
    const again = bench.sequence(PAGE_TOKENS + 1, { text });
    bench.run(again);
    assert.equal(again.prefixPages, hit, `text ${text}`);
    bench.leave(again);
  }
  bench.ledger.check(bench.running);
});

Deno.test("PageLedger.bottleneck() names the worker that has no page for the next position", () => {
  const bench = new Bench([3, 3]);
  const [first, second] = [bench.sequence(10), bench.sequence(10)];
  bench.run(first);
  bench.run(second);
  assert.deepEqual([first.pageOffset, second.pageOffset], [0, 1]);
  assert.equal(bench.ledger.reach(first), 5 * PAGE_TOKENS);
  assert.equal(bench.ledger.bottleneck(first), 1, "it lends its third page to the second sequence");
  assert.ok(bench.ledger.holdsOn(second, 1) && !bench.ledger.holdsOn(second, 0));
});

Deno.test("PageLedger.check() finds a page on the wrong worker", () => {
  const bench = new Bench([3, 3]);
  const sequence = bench.sequence(200);
  bench.run(sequence);
  sequence.pages.reverse();
  assert.throws(() => bench.ledger.check([sequence]), { code: "invalid_step", message: /lies on worker 1, not on 0/ });
});
