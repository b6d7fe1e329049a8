/** Who decodes a row and who is corrected in a step, by what each is predicted to take. */

import assert from "node:assert/strict";
import { resolveAttention } from "../../../router/scheduling/attention_policy.ts";
import { CostModel, NO_LOAD } from "../../../router/scheduling/cost_model.ts";
import { decodeWork, type NextWork } from "../../../router/scheduling/decode_work.ts";
import { EventQueue } from "../../../router/scheduling/event_queue.ts";
import type { CorrectionRequest } from "../../../router/scheduling/generation.ts";
import { Sequence } from "../../../router/scheduling/sequence.ts";
import { fakeModel } from "../../support/fake_model.ts";
import { generationRequest, promptOf } from "../../support/generation_request.ts";

const MODEL = fakeModel();

/** A machine where a decode row takes 1 ms and a row of a correction `spanMs`. */
function costsOf(spanMs: number): CostModel {
  const costs = new CostModel();
  for (let i = 0; i < 60; i++) {
    const rows = 1 + i % 8;
    costs.learn({ ...NO_LOAD, kinds: ["sparse"], decodeRows: rows, decodeContext: 10 * rows }, rows);
    costs.learn(
      { ...NO_LOAD, kinds: ["correction"], consecutiveRows: 4 * rows, spanContext: 400 * rows },
      spanMs * 4 * rows,
    );
  }
  return costs;
}

/** A sequence that has decoded so many sparse rows, none of which was corrected. */
function sequenceWith(rows: number, correction: Partial<CorrectionRequest>): Sequence {
  const request = { mode: "refresh", every: "auto", perToken: false, ...correction } as const;
  const attention = { mode: "sparse", budget: 16, heads: "kv_head", correction: request } as const;
  const sequence = new Sequence({
    request: generationRequest({ promptTokens: promptOf(40), maxTokens: 1000, attention }),
    model: MODEL,
    policy: resolveAttention(attention, MODEL),
    events: new EventQueue(1000, { onRoom: () => {}, onLeave: () => {} }),
    arrival: 0,
  });
  sequence.start(1, { offset: 0, pages: [] });
  for (let i = 0; i < rows; i++) {
    const work = sequence.work();
    const span = sequence.span(1, work, []);
    sequence.advance({ work, span }, { sequence: 1, token: 3 });
  }
  return sequence;
}

function nextOf(sequence: Sequence): NextWork {
  return { sequence, work: sequence.work() };
}

/** What each does, in words. */
function plan(sequences: readonly Sequence[], costs: CostModel, extraMs: number): string[] {
  const { works } = decodeWork(sequences.map(nextOf), costs, extraMs);
  return sequences.map((sequence) => {
    const work = works.get(sequence);
    return work === undefined ? "waits" : `${work.kind} ${work.rows}`;
  });
}

Deno.test("decodeWork() gives rows to those who are not due, and whole corrections to those who are while they fit", () => {
  const sequences = [sequenceWith(8, { every: 8 }), sequenceWith(3, { every: 8 }), sequenceWith(8, { every: 8 })];
  assert.deepEqual(plan(sequences, costsOf(1), 50), ["correction 8", "sparse 1", "correction 8"]);
});

Deno.test("decodeWork() cuts a correction for time; the others that are due wait, in every mode", () => {
  const first = sequenceWith(20, { every: 20 });
  const others = [sequenceWith(20, { every: 20 }), sequenceWith(20, { mode: "lossless", every: 20 })];
  const [cut, ...waiting] = plan([first, ...others], costsOf(2), 30);
  assert.match(cut ?? "", /^correction 1[3-6]$/);
  assert.deepEqual(waiting, ["waits", "waits"]);
});

Deno.test("decodeWork() starts the first correction that is due however long it takes, and no other", () => {
  const due = [sequenceWith(8, { mode: "lossless", every: 8 }), sequenceWith(8, { mode: "lossless", every: 8 })];
  assert.deepEqual(plan(due, costsOf(500), 50), ["correction 1", "waits"]);
});

Deno.test("decodeWork() gives each sequence the same work whatever a correction takes", () => {
  const kinds = (spanMs: number) =>
    plan([sequenceWith(32, {}), sequenceWith(31, {})], costsOf(spanMs), 50).map((words) => words.split(" ")[0]);
  assert.deepEqual(kinds(0.01), ["correction", "sparse"]);
  assert.deepEqual(kinds(500), ["correction", "sparse"]);
  assert.deepEqual(plan([sequenceWith(40, { mode: "off" })], costsOf(0.1), 50), ["sparse 1"]);
});

Deno.test("decodeWork() predicts the step without its corrections", () => {
  const costs = costsOf(1);
  const sequences = [sequenceWith(3, { every: 8 }), sequenceWith(8, { every: 8 })];
  const { rowsMs } = decodeWork(sequences.map(nextOf), costs, 50);
  assert.ok(rowsMs < 2.5, `${rowsMs} ms`);
});
